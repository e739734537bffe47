"""Drawing with diffusers the way scumble draws: deterministic DDIM, noise from torch's CPU generator, f32 throughout."""
import os

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

for quiet in (logging, transformers_logging):
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, 'models', 'emoji-sd')


def load(folder=MODEL):
    """A pipeline folder in f32 (the miniature's U-Net is stored in f16), with DDIM made from its scheduler file."""
    return ready(StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None, local_files_only=True))


def ready(pipe):
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    return pipe


@torch.no_grad()
def embed(pipe, prompts):
    """Last hidden states, (n, positions, width)."""
    ids = pipe.tokenizer(prompts, padding='max_length', max_length=pipe.tokenizer.model_max_length, truncation=True,
                         return_tensors='pt').input_ids
    return pipe.text_encoder(ids).last_hidden_state


def noise(pipe, seeds, height=None, width=None):
    """One (4, h, w) block for each seed, each from its own generator."""
    size = pipe.unet.config.sample_size
    shape = (1, pipe.unet.config.in_channels, height or size, width or size)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


@torch.no_grad()
def sample(pipe, prompts, seeds, steps=20, guidance=4., unet=None, stop=None):
    """DDIM with classifier-free guidance; returns latents. `stop`: how many of the steps are taken."""
    unet, scheduler = unet or pipe.unet, pipe.scheduler
    both = torch.cat([embed(pipe, ['']).expand(len(prompts), -1, -1), embed(pipe, prompts)])
    scheduler.set_timesteps(steps)
    z = noise(pipe, seeds) * scheduler.init_noise_sigma
    for t in scheduler.timesteps[:stop]:
        empty, full = unet(torch.cat([z, z]), t, both).sample.chunk(2)
        z = scheduler.step(empty + guidance * (full - empty), t, z).prev_sample
    return z


@torch.no_grad()
def decode(pipe, latents):
    """Pictures in [-1, 1], unclamped, (n, 3, h, w)."""
    return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample


def draw(pipe, prompts, seeds, steps=20, guidance=4., batch=8):
    out = []
    for i in range(0, len(prompts), batch):
        out.append(decode(pipe, sample(pipe, prompts[i:i + batch], seeds[i:i + batch], steps, guidance)))
    return torch.cat(out)


def to_bytes(pictures):
    """8-bit values, rounded as diffusers rounds, (n, h, w, 3)."""
    return ((pictures / 2 + .5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def put(pipe, path, strength=1.):
    """Puts the tensors of a partial file (diffusers names, with or without a component's name in front) into the pipeline. Every key
    must fit; returns how many did."""
    given = load_file(path)
    parts = {'unet': pipe.unet, 'text_encoder': pipe.text_encoder, 'vae': pipe.vae}
    for key, value in given.items():
        component, name = key.split('.', 1) if key.split('.')[0] in parts else ('unet', key)
        state = parts[component].state_dict()
        name = name if name in state else name.removeprefix('text_model.')
        if name not in state or state[name].shape != value.shape:
            raise SystemExit(f'{path}: {key} {tuple(value.shape)} fits no tensor of the model')
        state[name].lerp_(value.to(state[name].dtype), strength)
    return len(given)
