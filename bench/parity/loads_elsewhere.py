#!/usr/bin/env python3
"""Proof that diffusers loads every file scumble writes and draws the same picture from it.

    loads_elsewhere.py --scumble target/release/scumble --edit DIR       export every kind, load it, draw, compare
    loads_elsewhere.py --self-test                                       the loading half alone, on files written here

For each kind: `scumble export E --to KIND`, load it with diffusers (folder: from_pretrained; single: from_single_file; lora:
load_lora_weights; partial: every tensor put in by name; delta: `.diff`, `.diff_b` added as ComfyUI adds them), draw the prompt with the
same noise (DDIM) and compare with the PNG of `scumble generate --edit E` (for lora: `--lora FILE`; its distance from the exact edit is
printed too). Two numbers: PSNR of the 8-bit pictures, and of diffusers' float picture against the one drawn from the exported folder.
Exit 1 when any is under 40 dB, 2 when the edit does not change this picture (then nothing would be proved: choose another prompt).
"""
import argparse
import glob
import math
import os
import subprocess
import sys
import tempfile

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import drawing

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'golden'))
import ldm_names

KINDS = ['diffusers', 'single', 'lora', 'partial', 'delta']


def psnr(a, b, peak):
    error = (a.double() - b.double()).pow(2).mean().item()
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)


def scumble(args, *words):
    command = [args.scumble, *words, '--quiet'] + (['--model', args.model] if args.model != drawing.MODEL else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)}\nexit {done.returncode}\n{done.stderr}')


def our_picture(args, folder, *how):
    """What `scumble generate` draws: its PNG as an (h, w, 3) tensor."""
    scumble(args, 'generate', args.prompt, *how, '--seed', str(args.seed), '--steps', str(args.steps), '--guidance-scale',
            str(args.guidance), '--sampler', 'ddim', '--n', '1', '--output-dir', folder)
    found = glob.glob(f'{folder}/**/*.png', recursive=True)
    if len(found) != 1:
        raise SystemExit(f'{folder}: expected one PNG, found {found}')
    picture = Image.open(found[0]).convert('RGB')
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(picture.height, picture.width, 3)


def find(path, kind):
    """The exported thing itself, wherever in its output folder it lies."""
    if kind == 'diffusers':
        found = glob.glob(f'{path}/**/model_index.json', recursive=True)
        return os.path.dirname(one_of(found, path))
    return path if os.path.isfile(path) else one_of(glob.glob(f'{path}/**/*.safetensors', recursive=True), path)


def one_of(found, path):
    if len(found) != 1:
        raise SystemExit(f'{path}: expected one exported file, found {found}')
    return found[0]


def delta_names(pipe):
    """{module's key in a patch file: (component, module)} under every spelling that ComfyUI matches."""
    config = pipe.unet.config
    crossing_up = [t.startswith('CrossAttn') for t in config.up_block_types]
    out = {}
    for name in pipe.unet.state_dict():
        module = name.rsplit('.', 1)[0]
        ldm = ldm_names.unet_name(name, config.layers_per_block, len(config.block_out_channels), crossing_up).rsplit('.', 1)[0]
        for key in ('lora_unet_' + module.replace('.', '_'), 'unet.' + module, 'diffusion_model.' + ldm,
                    'lora_unet_' + ldm.replace('.', '_')):
            out[key] = (pipe.unet, module)
    for name in pipe.text_encoder.state_dict():
        module = name.rsplit('.', 1)[0]
        public = 'text_model.' + module.removeprefix('text_model.')
        out['text_encoders.clip_l.transformer.' + public] = (pipe.text_encoder, module)
        # comfy.lora.LORA_CLIP_MAP: kohya's names are matched for these alone.
        if '.mlp.' in public or '.self_attn.' in public:
            out['lora_te_' + public.replace('.', '_')] = (pipe.text_encoder, module)
    return out


def is_double(module):
    """Whether a key is there for A1111, which has its own spelling of the text encoder's norms; ComfyUI warns and goes on."""
    return module.startswith('lora_te') and 'norm' in module


@torch.no_grad()
def apply_delta(pipe, path):
    """weight += diff, bias += diff_b; a key without a home is an error here (ComfyUI would only warn), but for those that A1111 needs."""
    names = delta_names(pipe)
    for key, value in load_file(path).items():
        module, _, kind = key.rpartition('.')
        tensor = {'diff': 'weight', 'w_norm': 'weight', 'diff_b': 'bias', 'b_norm': 'bias'}.get(kind)
        if is_double(module):
            continue
        if tensor is None or module not in names:
            raise SystemExit(f'{path}: {key} is no key that ComfyUI would load')
        part, name = names[module]
        part.get_parameter(f'{name}.{tensor}').add_(value.float())


def load_lora(pipe, path):
    pipe.load_lora_weights(os.path.dirname(path) or '.', weight_name=os.path.basename(path))
    layers = [m for part in (pipe.unet, pipe.text_encoder) for m in part.modules() if hasattr(m, 'lora_A')]
    given = {k.split('.lora')[0] for k in load_file(path) if '.lora' in k}
    if len(layers) != len(given):
        raise SystemExit(f'{path}: {len(given)} modules in the file, diffusers took {len(layers)}')


def load(kind, path, model):
    if kind == 'diffusers':
        return drawing.load(path)
    if kind == 'single':
        return drawing.ready(StableDiffusionPipeline.from_single_file(path, config=model, local_files_only=True, dtype=torch.float32))
    pipe = drawing.load(model)
    {'lora': load_lora, 'partial': drawing.put, 'delta': apply_delta}[kind](pipe, path)
    return pipe


def lora_error(path, edited, model):
    """|fused - edited| / |edited - base| over all U-Net and text encoder weights: what the low rank left out."""
    pipe, base = load('lora', path, model), drawing.load(model)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    left = moved = 0.
    for part in ('unet', 'text_encoder'):
        a, b, c = (getattr(p, part).state_dict() for p in (pipe, edited, base))
        left += sum((a[k] - b[k]).double().pow(2).sum().item() for k in b)
        moved += sum((b[k] - c[k]).double().pow(2).sum().item() for k in b)
    return math.sqrt(left / moved)


def picture(pipe, args):
    return drawing.draw(pipe, [args.prompt], [args.seed], args.steps, args.guidance)


def compare(args, exported, ours):
    """Prints a line for each kind; True when all are close. `ours`: {kind: the 8-bit picture it must equal}."""
    folder = drawing.load(exported['diffusers'])
    exact, base = picture(folder, args), picture(drawing.load(args.model), args)
    changed = psnr(exact, base, 2)
    print(f'the edit changes the picture to {changed:.1f} dB of the base model\'s')
    if changed > 30:
        print('too little to prove anything; choose another --prompt', file=sys.stderr)
        raise SystemExit(2)
    good = True
    for kind, path in exported.items():
        drawn = picture(load(kind, path, args.model), args)
        eight, floating = psnr(drawing.to_bytes(drawn)[0], ours[kind], 255), psnr(drawn, exact, 2)
        note = ''
        if kind == 'lora':
            note = f'  reconstruction error {lora_error(path, folder, args.model):.2e} of the edit (its float PSNR is not a condition)'
        fine = eight >= args.minimum and (kind == 'lora' or floating >= args.minimum)
        good &= fine
        print(f'{kind:10} 8-bit {eight:6.1f} dB  float {floating:6.1f} dB  {"ok" if fine else "TOO FAR"}{note}')
    return good


def exported_by_scumble(args, work):
    exported = {}
    for kind in args.to:
        scumble(args, 'export', args.edit, '--to', kind, '--output-dir', f'{work}/{kind}')
        exported[kind] = find(f'{work}/{kind}', kind)
    edited = our_picture(args, f'{work}/ours', '--edit', args.edit)
    ours = {kind: edited for kind in exported}
    if 'lora' in exported:
        ours['lora'] = our_picture(args, f'{work}/ours-lora', '--lora', exported['lora'])
    plain = our_picture(args, f'{work}/ours-base')
    level = psnr(drawing.to_bytes(picture(drawing.load(args.model), args))[0], plain, 255)
    print(f'without any edit: scumble and diffusers are {level:.1f} dB apart')
    return exported, ours


@torch.no_grad()
def exported_by_hand(args, work, kohya):
    """An edit of rank 2 of every cross-attention matrix and a shift of its biases, in all five forms, written here."""
    base, pipe, g = drawing.load(args.model), drawing.load(args.model), torch.Generator().manual_seed(1)
    partial, delta, lora = {}, {}, {}
    for name, w in pipe.unet.state_dict().items():
        if 'attn2' not in name or not name.endswith('weight'):
            continue
        down, up = torch.randn(2, w.shape[1], generator=g) * .3, torch.randn(w.shape[0], 2, generator=g) * .3
        w.add_(up @ down * .5)
        module, partial[name] = name.removesuffix('.weight'), w
        delta[f'lora_unet_{module.replace(".", "_")}.diff'] = w - base.unet.state_dict()[name]
        if kohya:
            key = 'lora_unet_' + module.replace('.', '_')
            lora |= {f'{key}.lora_down.weight': down, f'{key}.lora_up.weight': up, f'{key}.alpha': torch.tensor(1.)}
        else:
            lora |= {f'unet.{module}.lora_A.weight': down, f'unet.{module}.lora_B.weight': up * .5}
    pipe.save_pretrained(f'{work}/diffusers')
    tensors = {'unet': pipe.unet.state_dict(), 'vae': pipe.vae.state_dict(),
               'text_encoder': {f'text_model.{k.removeprefix("text_model.")}': v for k, v in pipe.text_encoder.state_dict().items()}}
    one = ldm_names.single_file(tensors, pipe.unet.config, pipe.vae.config, pipe.text_encoder.config.to_dict())
    files = {'single': one, 'lora': lora, 'partial': partial, 'delta': delta}
    for kind, content in files.items():
        save_file({k: v.contiguous() for k, v in content.items()}, f'{work}/{kind}.safetensors')
    exported = {'diffusers': f'{work}/diffusers'} | {kind: f'{work}/{kind}.safetensors' for kind in files}
    return exported, dict.fromkeys(exported, drawing.to_bytes(picture(pipe, args))[0])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--scumble', default=os.path.join(drawing.ROOT, 'target', 'release', 'scumble'))
    p.add_argument('--edit', help='an Edit file or the output folder of `scumble erase`')
    p.add_argument('--self-test', action='store_true')
    p.add_argument('--model', default=drawing.MODEL, help='pipeline folder that the Edit belongs to (default: the miniature)')
    p.add_argument('--to', nargs='+', choices=KINDS, default=KINDS)
    p.add_argument('--prompt', default='a church in ink style')
    p.add_argument('--seed', type=int, default=7)
    p.add_argument('--steps', type=int, default=20)
    p.add_argument('--guidance', type=float, default=4.)
    p.add_argument('--minimum', type=float, default=40., help='dB')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    if bool(args.edit) == args.self_test:
        p.error('give --edit DIR or --self-test')
    if 'diffusers' not in args.to:
        args.to.insert(0, 'diffusers')                      # the float pictures are compared with it
    torch.set_num_threads(args.threads)
    good = True
    with tempfile.TemporaryDirectory() as work:
        if args.self_test:
            for kohya in (True, False):
                folder = os.path.join(work, 'kohya' if kohya else 'peft')
                os.makedirs(folder)
                good &= compare(args, *exported_by_hand(args, folder, kohya))
        else:
            good = compare(args, *exported_by_scumble(args, work))
    raise SystemExit(0 if good else 1)


if __name__ == '__main__':
    main()
