"""How fast `scumble train` is beside the same loops in PyTorch: denoiser, autoencoder and CLIP of one recipe, in turns in one run.

    python bench/speed/train.py --scumble BIN [--recipe FILE] [--steps 20] [--rounds 3] [--threads N] [--part denoiser ...]

A step is everything between two updates: the batch, the text encoder over its captions (denoiser), forward, backward, the gradient's norm, AdamW,
the moving average. Of ours the time of `--steps` steps is the difference of two trainings, so that no start counts; the first steps of PyTorch's
are not counted either. PyTorch gets its pictures and latents for nothing, ours draws its pictures in every step. Both compute in f32. Prints a line for
each part: seconds of a step, the median of the rounds on either side, and their ratio. Let nothing else run meanwhile.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

CAPTIONS = ['a church in ink style', 'a small dog on a blue background', 'a cat left of a tree in noto style', 'two guitars', 'a house above a fish']
WARM = 2


def ours(args, recipe, part, steps, place):
    """Seconds of so many steps, by two trainings from the same beginning."""
    def run(n):
        folder = place / f'{part}-{n}-{time.time_ns()}'
        text = f'{recipe}\n[{part}.training]\nsteps = {n}\nbatch = {args.batch[part]}\n'
        file = place / f'{part}.toml'
        file.write_text(text)
        needed = ['tokenizer', 'clip', 'vae'] if part == 'denoiser' else ['tokenizer'] if part == 'clip' else []
        command = [args.scumble, 'train', str(file), '--output-dir', str(folder), '--json', '--quiet', '--threads', str(args.threads)]
        for one in [*needed, part]:
            command += ['--part', one]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return next(p['seconds'] for p in told['parts'] if p['part'] == part), folder
    short, _ = run(WARM)
    long, folder = run(WARM + steps)
    return (long - short) / steps, folder


class Loop:
    """AdamW, the gradient's norm and a moving average over a loss."""

    def __init__(self, parameters, loss, lr):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.ema = [p.detach().clone() for p in self.parameters]
        self.loss = loss

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(self.ema, [p.detach() for p in self.parameters], 0.002)

    def seconds(self, steps):
        for _ in range(WARM):
            self.step()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - began) / steps


def denoiser(folder, batch):
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / 'unet')).train()
    text = CLIPTextModel.from_pretrained(folder / 'text_encoder', dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / 'tokenizer')
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
    config = unet.config
    latents = torch.randn(batch, config.in_channels, config.sample_size, config.sample_size)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(batch)]

    def loss():
        ids = tokenizer(captions, padding='max_length', max_length=text.config.max_position_embeddings, truncation=True, return_tensors='pt').input_ids
        with torch.no_grad():
            context = text(ids)[0]
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (batch,))
        alpha = schedule.alphas_cumprod[t]
        weight = (alpha / (1 - alpha)).clamp(max=5.0) / (alpha / (1 - alpha))
        answer = unet(schedule.add_noise(latents, noise, t), t, context).sample
        return ((answer - noise).pow(2) * weight[:, None, None, None]).mean()
    return Loop(unet.parameters(), loss, 6e-4)


def vae(folder, batch):
    network = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / 'vae')).train()
    side = network.config.sample_size
    x = torch.rand(batch, 3, side, side) * 2 - 1

    def loss():
        posterior = network.encode(x).latent_dist
        error = network.decode(posterior.sample()).sample - x
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 4.0 * error.pow(2).mean() + 0.5 * edges + 1e-3 * posterior.kl().sum() / x.numel()
    return Loop(network.parameters(), loss, 1e-3)


def clip(folder, batch):
    network = CLIPModel.from_pretrained(folder / 'clip', dtype=torch.float32).train()
    tokenizer = CLIPTokenizer.from_pretrained(folder / 'tokenizer')
    pictures = torch.randn(batch, 3, network.config.vision_config.image_size, network.config.vision_config.image_size)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(batch)]
    length = network.config.text_config.max_position_embeddings

    def loss():
        ids = tokenizer(captions, padding='max_length', max_length=length, truncation=True, return_tensors='pt').input_ids
        logits = network(input_ids=ids, pixel_values=pictures).logits_per_image
        right = torch.arange(batch)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    return Loop(network.parameters(), loss, 1e-3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scumble', default='target/release/scumble')
    parser.add_argument('--recipe', type=pathlib.Path, help='sizes; those of emoji-64 if absent')
    parser.add_argument('--part', nargs='+', choices=['denoiser', 'vae', 'clip'], default=['denoiser', 'vae', 'clip'])
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.batch = dict(denoiser=64, vae=8, clip=64)
    recipe = args.recipe.read_text() if args.recipe else ''
    # What the denoiser stands on is trained for a moment; only its sizes matter.
    brief = ''.join(f'\n[{part}.training]\nsteps = 1\nbatch = 2\n' for part in ('clip', 'vae'))
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        for part in args.part:
            extra = f'[denoiser]\nlatents = 64\n{brief}' if part == 'denoiser' else ''
            rounds = []
            for _ in range(args.rounds):
                mine, folder = ours(args, recipe + extra, part, args.steps, place)
                theirs = globals()[part](folder, args.batch[part]).seconds(args.steps)
                rounds.append((mine, theirs))
            mine, theirs = (statistics.median(side) for side in zip(*rounds))
            print(json.dumps(dict(part=part, batch=args.batch[part], threads=args.threads, scumble=round(mine, 4), torch=round(theirs, 4),
                                  ratio=round(theirs / mine, 2), rounds=[[round(x, 4) for x in pair] for pair in rounds])), flush=True)


if __name__ == '__main__':
    main()
