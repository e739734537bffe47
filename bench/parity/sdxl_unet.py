#!/usr/bin/env python3
"""SDXL's U-Net at its true size: one forward pass here and in diffusers, on the same numbers, with the peak memory of both.

    sdxl_unet.py FOLDER [--side 512] [--scumble PROGRAM] [--threads 2]

FOLDER is what make_sdxl.py makes (f16). diffusers reads it into f32 and writes inputs and output as reference tensors (a process of its own,
about 11 GB); `scumble verify` then computes the same. Both peaks are those of whole processes, weights included.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time


def reference(folder, side, path, threads):
    """Runs diffusers' U-Net and writes what went in and what came out."""
    import drawing  # noqa: F401 (keeps the libraries quiet)
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file
    torch.set_num_threads(threads)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder='unet', dtype=torch.float32, local_files_only=True).eval()

    def noise(seed, *shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    config = unet.config
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    inputs = dict(unet_sample=noise(1, 1, config.in_channels, side // 8, side // 8), unet_timestep=torch.tensor([601]),
                  unet_context=noise(2, 1, 77, config.cross_attention_dim), unet_pooled=noise(3, 1, pooled_width))
    ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
    began = time.perf_counter()
    with torch.no_grad():
        out = unet(inputs['unet_sample'], inputs['unet_timestep'], inputs['unet_context'],
                   added_cond_kwargs=dict(text_embeds=inputs['unet_pooled'], time_ids=ids)).sample
    seconds = time.perf_counter() - began
    save_file(dict(inputs, unet_out=out.contiguous()), path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(dict(seconds=round(seconds, 2), peak=peak)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    p.add_argument('--side', type=int, default=512)
    p.add_argument('--scumble', default='target/release/scumble')
    p.add_argument('--threads', type=int, default=os.cpu_count())
    p.add_argument('--write', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.write:
        return reference(args.folder, args.side, args.write, args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'reference.safetensors')
        theirs = subprocess.run([sys.executable, os.path.abspath(__file__), args.folder, '--side', str(args.side), '--threads', str(args.threads),
                                 '--write', path], check=True, capture_output=True, text=True)
        print('diffusers', theirs.stdout.strip().splitlines()[-1])
        ours = [args.scumble, 'verify', args.folder, '--reference', path, '--json', '--quiet', '--threads', str(args.threads)]
        began = time.perf_counter()
        child = subprocess.Popen(ours)
        _, status, usage = os.wait4(child.pid, 0)
        print('scumble  ', json.dumps(dict(seconds_whole_process=round(time.perf_counter() - began, 2), peak=usage.ru_maxrss * 1024)))
        return os.waitstatus_to_exitcode(status)


if __name__ == '__main__':
    sys.exit(main())
