"""The networks of bench/study/compare in PyTorch: diffusers' and transformers' own modules, eager, f32, attention as they choose it.

The miniature is read from its folder; Stable Diffusion 1.4's shapes are built without memory and filled by formula.py. Components are
built when a cell first needs them and are kept.
"""
import functools
import math
import os

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import networks
from formula import activation, fill_weight, ids
from trained import RULES, trained

MINI = os.path.join(networks.ROOT, 'models', 'emoji-sd')
PROMPT = 'a church in ink style'
SHOWN = 'up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight'  # the gradient whose fingerprint is taken
# What the default rows of a cell are: batch of forward passes, of training steps; side of the latents; tokens.
SIZES = {'mini': dict(forward=8, step=8, text=8, vae=8, side=8, tokens=32, width=128, vocabulary=726),
         'sd14': dict(forward=2, step=1, text=2, vae=1, side=32, tokens=77, width=768, vocabulary=49408)}
SD14 = networks.sd14(1)
SD14_SCHEDULER = dict(networks.SD_BETAS, steps_offset=1, set_alpha_to_one=False, clip_sample=False)


def filled(component, make):
    """A model of random weights. Text encoders' names carry the `text_model.` that their files have and transformers 5 leaves out."""
    with torch.device('meta'):
        model = make()
    model = model.to_empty(device='cpu')
    prefix = 'text_encoder.text_model.' if component == 'text_encoder' else f'{component}.'
    for name, p in model.named_parameters():
        fill_weight(p, prefix + name.removeprefix('text_model.'))
    for name, b in model.named_buffers():
        if not name.endswith('position_ids'):
            raise ValueError(f'{component}: no rule for the buffer {name}')
        b.copy_(torch.arange(b.shape[-1]).expand_as(b))
    return model


@functools.cache
def part(size, component):
    """unet, vae or text_encoder."""
    cls = {'unet': UNet2DConditionModel, 'vae': AutoencoderKL, 'text_encoder': CLIPTextModel}[component]
    if size == 'mini':
        dtype = {'dtype' if component == 'text_encoder' else 'torch_dtype': torch.float32}
        model = cls.from_pretrained(os.path.join(MINI, component), local_files_only=True, **dtype)
    elif component == 'text_encoder':
        model = filled(component, lambda: cls(CLIPTextConfig(**dict(SD14['text'], vocab_size=SIZES[size]['vocabulary']))))
    else:
        model = filled(component, lambda: cls(**SD14[component]))
    return model.eval().requires_grad_(False)


def unet_inputs(size, batch, side):
    rows = SIZES[size]
    # Beyond ten rows the timesteps start again: none is negative.
    times = torch.tensor([(981 - 100 * j) % 1000 for j in range(batch)])
    return activation('sample', batch, 4, side, side), times, activation('context', batch, rows['tokens'], rows['width'])


def unet_forward(size, batch, side):
    unet, (sample, times, context) = part(size, 'unet'), unet_inputs(size, batch, side)
    return torch.inference_mode()(lambda: unet(sample, times, context).sample)


def unet_step(size, method, batch, side):
    """Gradients as in a training loop: the last run's are dropped, new ones are made; they are held until the next run."""
    unet, (sample, times, context) = part(size, 'unet'), unet_inputs(size, batch, side)
    target = activation('target', batch, 4, side, side)
    moving = trained(unet, method)

    def run():
        unet.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(unet(sample, times, context).sample, target).backward()
        return moving[SHOWN].grad

    def ready():
        unet.requires_grad_(False)
        for p in moving.values():
            p.requires_grad_(True)
    run.ready, run.release = ready, unet.zero_grad
    return run


def vae(size, what, batch, side):
    model = part(size, 'vae')
    if what == 'decode':
        latents = activation('latents', batch, 4, side, side)
        return torch.inference_mode()(lambda: model.decode(latents).sample)
    pixels = 2 ** (len(model.config.block_out_channels) - 1) * side
    pictures = activation('pictures', batch, 3, pixels, pixels)
    return torch.inference_mode()(lambda: model.encode(pictures).latent_dist.mean)


def text_encoder(size, batch):
    model, given = part(size, 'text_encoder'), ids(batch, SIZES[size]['tokens'], SIZES[size]['vocabulary'])
    return torch.inference_mode()(lambda: model(given).last_hidden_state)


def prompt_ids(size):
    """(2, tokens): the empty prompt, then the prompt."""
    if size == 'sd14':
        return ids(2, 77, 49408).flip(0)
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(MINI, 'tokenizer'), local_files_only=True)
    return tokenizer(['', PROMPT], padding='max_length', max_length=32, truncation=True, return_tensors='pt').input_ids


def picture(size, steps, guidance, side):
    """From token ids to the decoded picture, by the loop of StableDiffusionPipeline: DDIM, both halves of the guidance in one batch."""
    unet, decoder, encoder = part(size, 'unet'), part(size, 'vae'), part(size, 'text_encoder')
    scheduler = DDIMScheduler(**SD14_SCHEDULER) if size == 'sd14' else DDIMScheduler.from_pretrained(os.path.join(MINI, 'scheduler'))
    given, noise = prompt_ids(size), activation('noise', 1, 4, side, side, scale=math.sqrt(3))

    @torch.inference_mode()
    def run():
        context = encoder(given).last_hidden_state
        scheduler.set_timesteps(steps)
        z = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([z, z]), t)
            empty, full = unet(both, t, context).sample.chunk(2)
            z = scheduler.step(empty + guidance * (full - empty), t, z).prev_sample
        return decoder.decode(z / decoder.config.scaling_factor).sample
    return run


def prepare(name):
    """A function without arguments that computes the cell once; None if no network has that name. Of its attributes, where it has them,
    `ready` is to be called before the clock starts, `release` before another cell is run."""
    stem, *suffixes = name.split('@')
    what, _, size = stem.partition('/')
    given = {k: int(v) for k, v in (s.split('=') for s in suffixes)}
    if size not in SIZES or set(given) - {'batch', 'side'}:
        return None
    rows, side = SIZES[size], given.get('side', SIZES[size]['side'])

    def batch(kind):
        return given.get('batch', 1 if 'side' in given else rows[kind])
    if what == 'unet-forward':
        return unet_forward(size, batch('forward'), side)
    if what.removeprefix('unet-step-') in RULES:
        return unet_step(size, what.removeprefix('unet-step-'), batch('step'), side)
    if what in ('vae-decode', 'vae-encode'):
        return vae(size, what.removeprefix('vae-'), batch('vae'), side)
    if what == 'text-encoder':
        return text_encoder(size, batch('text'))
    if what in ('picture-30', 'picture-3'):
        return picture(size, *((30, 4.) if what == 'picture-30' else (3, 7.5)), side)
    return None
