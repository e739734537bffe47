"""Random Stable Diffusion networks of real shape: configurations, weights with sane activations, and folders as they are published.

`configuration(family, seed, divisor)` -> a dictionary with the constructor arguments of every part.
`build(spec, seed)`                    -> the parts, with random weights.
`write(parts, spec, folder, dtype)`    -> a StableDiffusionPipeline folder, named as published folders name things.
"""
import json
import math
import os
import random
import shutil

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOKENIZER = os.path.join(ROOT, 'models', 'emoji-sd', 'tokenizer')
START, END, VOCABULARY = 724, 725, 726                                   # of that tokenizer

SD_BETAS = dict(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear', num_train_timesteps=1000, trained_betas=None)
# The scheduler files as Stable Diffusion 1.4 and 2.1 (768, v) ship them.
PNDM_14 = dict(_class_name='PNDMScheduler', _diffusers_version='0.7.0.dev0', skip_prk_steps=True, steps_offset=1,
               set_alpha_to_one=False, clip_sample=False, **SD_BETAS)
DDIM_21 = dict(_class_name='DDIMScheduler', _diffusers_version='0.8.0', prediction_type='v_prediction', steps_offset=1,
               set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False, **SD_BETAS)


def narrow(width, divisor, groups):
    """A published width divided, rounded to a multiple of the group count (never below one group of it)."""
    return max(groups, round(width / divisor / groups) * groups)


def heads_for(wanted, width):
    """The largest number of heads up to `wanted` that divides `width`."""
    return max(h for h in range(1, wanted + 1) if width % h == 0)


def unet_types(crossing):
    """Block names for a list of booleans, one per level from the top; the up path runs the other way."""
    down = ['CrossAttnDownBlock2D' if c else 'DownBlock2D' for c in crossing]
    return down, ['CrossAttnUpBlock2D' if c else 'UpBlock2D' for c in reversed(crossing)]


def vae_of(widths, layers, groups, sample_size, scaling_factor):
    n = len(widths)
    return dict(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=widths, layers_per_block=layers,
                norm_num_groups=groups, sample_size=sample_size, scaling_factor=scaling_factor,
                down_block_types=['DownEncoderBlock2D'] * n, up_block_types=['UpDecoderBlock2D'] * n)


def text_of(hidden, layers, heads, act, positions, intermediate=None, pad=END, vocab=VOCABULARY):
    return dict(vocab_size=vocab, hidden_size=hidden, intermediate_size=intermediate or 4 * hidden, num_hidden_layers=layers,
                num_attention_heads=heads, hidden_act=act, max_position_embeddings=positions, projection_dim=hidden,
                bos_token_id=START, eos_token_id=END, pad_token_id=pad)


def sd14(divisor, groups=None, layers=2, positions=77, text_layers=12):
    """Stable Diffusion 1.4: heads as one integer, convolutions as projections, quick GELU, PNDM in the scheduler file."""
    groups = groups or (32 if 320 / divisor >= 32 else 4)
    widths = [narrow(w, divisor, groups) for w in (320, 640, 1280, 1280)]
    text_heads = 12 if divisor == 1 else 4
    hidden = 768 if divisor == 1 else narrow(768, divisor, 2 * text_heads)
    heads = 8 if divisor == 1 else math.gcd(8, *widths)
    down, up = unet_types([True, True, True, False])
    unet = dict(sample_size=64, block_out_channels=widths, layers_per_block=layers, down_block_types=down, up_block_types=up,
                attention_head_dim=heads, cross_attention_dim=hidden, norm_num_groups=groups)
    vae = vae_of([narrow(w, divisor, groups) for w in (128, 256, 512, 512)], layers, groups, 512, .18215)
    return dict(unet=unet, vae=vae, text=text_of(hidden, text_layers, text_heads, 'quick_gelu', positions), scheduler=PNDM_14, pad=END,
                old_vae_names=True, position_ids=True)


def sd21v(divisor, groups=None, layers=2, positions=77, text_layers=23):
    """Stable Diffusion 2.1 (768, v): a list of heads, linear projections, exact GELU, 23 text layers, padding with id 0."""
    groups = groups or (32 if 320 / divisor >= 32 else 4)
    widths = [narrow(w, divisor, groups) for w in (320, 640, 1280, 1280)]
    text_heads = 16 if divisor == 1 else 4
    hidden = 1024 if divisor == 1 else narrow(1024, divisor, 2 * text_heads)
    heads = [heads_for(h, w) for h, w in zip((5, 10, 20, 20), widths)]
    down, up = unet_types([True, True, True, False])
    unet = dict(sample_size=96, block_out_channels=widths, layers_per_block=layers, down_block_types=down, up_block_types=up,
                attention_head_dim=heads, cross_attention_dim=hidden, norm_num_groups=groups, use_linear_projection=True,
                upcast_attention=True)
    vae = vae_of([narrow(w, divisor, groups) for w in (128, 256, 512, 512)], layers, groups, 768, .18215)
    return dict(unet=unet, vae=vae, text=text_of(hidden, text_layers, text_heads, 'gelu', positions, pad=0), scheduler=DDIM_21, pad=0,
                old_vae_names=False, position_ids=False)


def mini_random(seed, divisor=10):
    """Everything that a config.json may vary, drawn from the seed; `divisor` bounds the widths as for the other families."""
    r = random.Random(f'mini-random {seed}')
    groups = r.choice([4, 8, 12])
    levels = r.randint(2, 4)
    widest = max(3, round(1280 / divisor / groups))
    widths = sorted(groups * r.randint(2, widest) for _ in range(levels))
    crossing = [r.random() < .7 for _ in range(levels)]
    if not any(crossing):
        crossing[r.randrange(levels)] = True
    divisors = [[h for h in range(1, 9) if w % h == 0] for w in widths]
    heads = r.choice([h for h in range(1, 9) if all(h in d for d in divisors)]) if r.random() < .5 else [r.choice(d) for d in divisors]
    text_heads = r.choice([1, 2, 3, 4])
    hidden = text_heads * r.randint(5, 24) * 2
    down, up = unet_types(crossing)
    layers = r.choice([1, 2])
    unet = dict(sample_size=r.choice([8, 10, 12]), block_out_channels=widths, layers_per_block=layers, down_block_types=down,
                up_block_types=up, attention_head_dim=heads, cross_attention_dim=hidden, norm_num_groups=groups,
                use_linear_projection=r.random() < .5)
    vae_groups = r.choice([4, 6, 8])
    factor_levels = r.randint(2, 4)
    vae = vae_of([vae_groups * r.randint(1, 6) for _ in range(factor_levels)], r.choice([1, 2]), vae_groups,
                 unet['sample_size'] * 2 ** (factor_levels - 1), r.choice([.18215, .13025, .7]))
    # steps_offset stays 1: StableDiffusionPipeline replaces any other value by 1 when it loads a folder.
    scheduler = dict(_class_name='DDIMScheduler', _diffusers_version='0.42.1', prediction_type=r.choice(['epsilon', 'v_prediction']),
                     steps_offset=1, set_alpha_to_one=r.random() < .5, clip_sample=False,
                     timestep_spacing=r.choice(['leading', 'leading', 'trailing', 'linspace']), **SD_BETAS)
    if r.random() < .3:
        scheduler.update(beta_schedule='linear', beta_start=.0001, beta_end=.02)
    pad = r.choice([END, 0])
    text = text_of(hidden, r.randint(1, 5), text_heads, r.choice(['gelu', 'quick_gelu']), r.choice([24, 32, 77]),
                   intermediate=hidden * r.choice([2, 3, 4]), pad=pad)
    return dict(unet=unet, vae=vae, text=text, scheduler=scheduler, pad=pad, old_vae_names=r.random() < .5, position_ids=r.random() < .5)


def configuration(family, seed, divisor):
    if family == 'mini-random':
        return mini_random(seed, divisor)
    return {'sd14': sd14, 'sd21v': sd21v}[family](divisor)


@torch.no_grad()
def randomise(module, generator):
    """Weights that keep variances near one and leave nothing at a neutral value.

    Norms get scales around one and shifts; every bias is non-zero; queries and keys are stronger than the rest, because attention
    that is nearly uniform would hide a mistake in the heads; convolutions and linear layers preserve variance.
    """
    for name, p in module.named_parameters():
        normal = torch.randn(p.shape, generator=generator)
        if 'norm' in name:
            p.copy_(1 + .15 * normal if name.endswith('weight') else .1 * normal)
        elif name.endswith('bias'):
            p.copy_(.05 * normal)
        elif 'embeddings' in name:
            p.copy_(.5 * normal)
        else:
            strong = any(part in name for part in ('.to_q.', '.to_k.', '.q_proj.', '.k_proj.'))
            p.copy_(normal * (1.5 if strong else 1.) / math.sqrt(p[0].numel()))


@torch.no_grad()
def scale_to(layer, outputs, spread):
    """Rescales the last layer so that the outputs seen have this standard deviation."""
    factor = spread / outputs.float().std().item()
    layer.weight.mul_(factor)
    layer.bias.mul_(factor)


@torch.no_grad()
def build(spec, seed):
    """The parts (unet, vae, text encoder) with random weights, their outputs scaled as trained networks' are."""
    g = torch.Generator().manual_seed(seed)
    unet = UNet2DConditionModel(**spec['unet']).eval()
    vae = AutoencoderKL(**spec['vae']).eval()
    text = CLIPTextModel(CLIPTextConfig(**spec['text'])).eval()
    for part in (unet, vae, text):
        randomise(part, g)
    h, w = sizes(spec)['unet']
    x = torch.randn(2, 4, h, w, generator=g)
    context = torch.randn(2, 8, spec['text']['hidden_size'], generator=g)
    scale_to(unet.conv_out, unet(x, torch.tensor([801, 21]), context).sample, .9)
    h, w = sizes(spec)['image']
    moments = vae._encode(torch.rand(1, 3, h, w, generator=g) * 2 - 1)
    # The mean spreads by 1 / scaling_factor, as in a trained VAE; the log variance stays small.
    factor = 1 / spec['vae']['scaling_factor'] / moments[:, :4].std().item()
    for p in (vae.quant_conv.weight, vae.quant_conv.bias):
        p[:4].mul_(factor)
        p[4:].mul_(.3)
    z = torch.randn(1, 4, *sizes(spec)['ddim'], generator=g) / spec['vae']['scaling_factor']
    scale_to(vae.decoder.conv_out, vae.decode(z).sample, .5)
    return dict(unet=unet, vae=vae, text_encoder=text)


def sizes(spec):
    """Heights and widths of the reference tensors: never square. The U-Net's may be odd at every level, which real pipelines meet
    with pictures such as 520 x 512; what passes the VAE both ways is a multiple of its factor."""
    factor = 2 ** (len(spec['vae']['block_out_channels']) - 1)
    levels = len(spec['unet']['block_out_channels'])
    unit = 2 ** (levels - 1)
    ddim = (2 * unit, 3 * unit) if unit < 8 else (unit, 2 * unit)
    return dict(unet=(unit + 1, 2 * unit + 1), ddim=ddim, image=(3 * factor, 5 * factor))


def old_attention(name):
    """The VAE's middle attention as published SD 1.x files name it."""
    for new, old in (('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'proj_attn')):
        name = name.replace(f'mid_block.attentions.0.{new}.', f'mid_block.attentions.0.{old}.')
    return name


def tensors_of(parts, spec, dtype):
    """{component: {published name: tensor}}; integers keep their type."""
    out = {name: {k: v.detach().to(dtype).contiguous() for k, v in part.state_dict().items()} for name, part in parts.items()}
    if spec['old_vae_names']:
        out['vae'] = {old_attention(k): v for k, v in out['vae'].items()}
    text = {k.removeprefix('text_model.'): v for k, v in out['text_encoder'].items() if not k.endswith('position_ids')}
    out['text_encoder'] = {f'text_model.{k}': v for k, v in text.items()}
    if spec['position_ids']:
        out['text_encoder']['text_model.embeddings.position_ids'] = torch.arange(spec['text']['max_position_embeddings'])[None]
    return out


def write(parts, spec, folder, dtype):
    """A complete pipeline folder, without safety checker."""
    tensors = tensors_of(parts, spec, dtype)
    for name, part in parts.items():
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        weights = 'model.safetensors' if name == 'text_encoder' else 'diffusion_pytorch_model.safetensors'
        save_file(tensors[name], os.path.join(folder, name, weights), metadata={'format': 'pt'})
        if name == 'text_encoder':
            part.config.architectures = ['CLIPTextModel']
            part.config.save_pretrained(os.path.join(folder, name))
        else:
            part.save_config(os.path.join(folder, name))
    write_json(spec['scheduler'], folder, 'scheduler', 'scheduler_config.json')
    write_tokenizer(spec, os.path.join(folder, 'tokenizer'))
    index = {'_class_name': 'StableDiffusionPipeline', '_diffusers_version': '0.42.1', 'feature_extractor': [None, None],
             'image_encoder': [None, None], 'requires_safety_checker': False, 'safety_checker': [None, None],
             'scheduler': ['diffusers', spec['scheduler']['_class_name']], 'text_encoder': ['transformers', 'CLIPTextModel'],
             'tokenizer': ['transformers', 'CLIPTokenizer'], 'unet': ['diffusers', 'UNet2DConditionModel'],
             'vae': ['diffusers', 'AutoencoderKL']}
    write_json(index, folder, 'model_index.json')
    return tensors


def write_tokenizer(spec, folder):
    """The miniature's words with this model's length and padding, in the two old files alone (as SD 1.x and 2.x folders have it)."""
    os.makedirs(folder, exist_ok=True)
    for name in ('vocab.json', 'merges.txt'):
        shutil.copy(os.path.join(TOKENIZER, name), os.path.join(folder, name))
    pad = {END: '<|endoftext|>', 0: '!'}[spec['pad']]
    special = dict(bos_token='<|startoftext|>', eos_token='<|endoftext|>', unk_token='<|endoftext|>', pad_token=pad)
    write_json(special, folder, 'special_tokens_map.json')
    write_json(dict(special, add_prefix_space=False, do_lower_case=True, errors='replace', tokenizer_class='CLIPTokenizer',
                    model_max_length=spec['text']['max_position_embeddings']), folder, 'tokenizer_config.json')


def write_json(value, *path):
    path = os.path.join(*path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        json.dump(value, f, indent=2)
        f.write('\n')
