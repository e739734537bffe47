#!/usr/bin/env python3
"""Writes sdxl.json.gz and sdxl.safetensors (read by ../sdxl.rs), both beside this file: U-Nets with transformers of several depths and
added conditioning, and the text encoders that SDXL uses, as diffusers and transformers compute them.

Weights and inputs come from a formula that the test repeats, so that only configurations, names and results are stored. f32 on the CPU.
torch 2.15.0, diffusers 0.42.1, transformers 5.23.0:  OMP_NUM_THREADS=1 python crates/nn/tests/golden/sdxl.py
"""
import gzip
import json
import math
import os
import random

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

HERE = os.path.dirname(os.path.abspath(__file__))


def numbers(shape, stream):
    """Numbers in [-1, 1] that look random and are the same in every language."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    return (((i * i + i * 7919 + stream * 104729) % 1009).double() / 504 - 1).float().reshape(shape)


@torch.no_grad()
def fill(net):
    """Weights that keep variances near one and leave nothing at a neutral value; the k-th name in order has stream k."""
    # transformers 5 sometimes leaves the prefix of a text encoder's names out.
    bare = ('embeddings.', 'encoder.', 'final_layer_norm.')
    parameters = {f'text_model.{k}' if k.startswith(bare) else k: p for k, p in net.named_parameters()}
    names = []
    for k, name in enumerate(sorted(parameters)):
        p = parameters[name]
        x = numbers(p.shape, k)
        if 'norm' in name:
            x = 1 + .2 * x if name.endswith('weight') else .1 * x
        elif name.endswith('bias'):
            x = .1 * x
        elif 'embeddings' not in name:
            strong = any(part in name for part in ('.to_q.', '.to_k.', '.q_proj.', '.k_proj.'))
            # math.sqrt is rounded correctly everywhere.
            x = x * (2.5 if strong else 1.7) / math.sqrt(p[0].numel())
        p.copy_(x)
        names.append([name, list(p.shape)])
    return names


def types(crossing):
    down = ['CrossAttnDownBlock2D' if c else 'DownBlock2D' for c in crossing]
    return down, ['CrossAttnUpBlock2D' if c else 'UpBlock2D' for c in reversed(crossing)]


def like_sdxl():
    """SDXL's build: no transformer in the first level, depths that grow, linear projections."""
    down, up = types([False, True, True])
    return dict(sample_size=8, block_out_channels=[8, 12, 20], layers_per_block=2, down_block_types=down, up_block_types=up,
                attention_head_dim=[1, 3, 5], transformer_layers_per_block=[0, 1, 2], cross_attention_dim=17, norm_num_groups=4,
                use_linear_projection=True, addition_embed_type='text_time', addition_time_embed_dim=6,
                projection_class_embeddings_input_dim=11 + 6 * 6)


def asymmetric():
    """A depth for each transformer, another way up than down, transformers of no block, convolutions as projections."""
    down, up = types([True, True])
    return dict(sample_size=6, block_out_channels=[6, 15], layers_per_block=2, down_block_types=down, up_block_types=up,
                attention_head_dim=[2, 5], transformer_layers_per_block=[[1, 0], [3, 2]],
                reverse_transformer_layers_per_block=[[2, 1, 0], [0, 1, 2]], cross_attention_dim=9, norm_num_groups=3,
                use_linear_projection=False, flip_sin_to_cos=False, freq_shift=1, addition_embed_type='text_time',
                addition_time_embed_dim=4, projection_class_embeddings_input_dim=7 + 5 * 4)


def drawn(seed):
    r = random.Random(f'sdxl {seed}')
    groups = r.choice([3, 4, 5])
    levels = r.randint(2, 3)
    widths = [2 * groups * r.randint(1, 4) for _ in range(levels)]
    crossing = [r.random() < .6 for _ in range(levels)]
    down, up = types(crossing)
    layers = r.choice([1, 2])
    config = dict(sample_size=8, block_out_channels=widths, layers_per_block=layers, down_block_types=down, up_block_types=up,
                  attention_head_dim=[r.choice([h for h in range(1, 6) if w % h == 0]) for w in widths],
                  cross_attention_dim=r.randint(5, 23), norm_num_groups=groups, use_linear_projection=r.random() < .5,
                  flip_sin_to_cos=r.random() < .7, freq_shift=r.choice([0, 0, 1]))
    kind = r.choice(['one', 'list', 'list', 'each'])
    if kind == 'one':
        config['transformer_layers_per_block'] = r.randint(1, 3)
    elif kind == 'list':
        config['transformer_layers_per_block'] = [r.randint(0, 3) for _ in widths]
    else:
        config['transformer_layers_per_block'] = [[r.randint(0, 3) for _ in range(layers)] for _ in widths]
        config['reverse_transformer_layers_per_block'] = [
            r.choice([r.randint(0, 3), [r.randint(0, 3) for _ in range(layers + 1)]]) for _ in widths]
    if r.random() < .7:
        time = 2 * r.randint(2, 5)
        config.update(addition_embed_type='text_time', addition_time_embed_dim=time,
                      projection_class_embeddings_input_dim=r.randint(3, 13) + r.choice([5, 6]) * time)
    return config


LABELS = [17., 803.]
# Sizes, crops and targets as pipelines give them; some whole hundreds, some not.
TIME_IDS = [[1024., 768., 0., 0., 1024., 1024.], [333., 512., 16., 200., 640., 832.]]


def unet(name, config, size, tensors, gradients=False):
    net = UNet2DConditionModel(**config).eval()
    names = fill(net)
    config = dict(net.config)
    z, c = numbers([2, 4, *size], 1), numbers([2, 7, config['cross_attention_dim']], 2)
    added, ids, pooled = None, [], None
    if config['addition_embed_type']:
        width, time = config['projection_class_embeddings_input_dim'], config['addition_time_embed_dim']
        # As many time ids as leave between 3 and 13 numbers for the pooled embedding.
        count = next(n for n in (6, 5) if 3 <= width - n * time <= 13)
        ids = [row[:count] for row in TIME_IDS]
        pooled = numbers([2, width - count * time], 3)
        added = dict(text_embeds=pooled, time_ids=torch.tensor(ids))
    for x in (z, c, pooled):
        if gradients:
            x.requires_grad_()
    out = net(z, torch.tensor(LABELS), c, added_cond_kwargs=added).sample
    tensors[f'{name}.out'] = out.detach()
    if gradients:
        loss = ((out - numbers(out.shape, 4)) ** 2).mean()
        loss.backward()
        tensors[f'{name}.loss'] = loss.detach().reshape(1)
        tensors[f'{name}.z'], tensors[f'{name}.c'], tensors[f'{name}.pooled'] = z.grad, c.grad, pooled.grad
        for key, p in net.named_parameters():
            assert p.grad is not None, key
            if any(part in key for part in ('add_embedding.', 'time_embedding.linear_1.bias', 'mid_block.attentions.0.transformer_blocks.1.',
                                            'down_blocks.1.attentions.0.', 'up_blocks.0.attentions.2.transformer_blocks.0.attn2.')):
                tensors[f'{name}.unet.{key}'] = p.grad
    with torch.no_grad():
        exact = net.double()(z.double(), torch.tensor(LABELS), c.double(),
                             added_cond_kwargs=added and dict(text_embeds=pooled.double(), time_ids=torch.tensor(ids))).sample
    floor = ((out - exact).abs().max() / exact.abs().max()).item()
    print(f'{name}: {len(names)} tensors, f32 is within {floor:.1e} of f64')
    keep = {k: v for k, v in config.items() if not k.startswith('_')}
    return dict(config=keep, names=names, size=list(size), time_ids=ids, floor=floor)


# Start, text, end, pads; the second prompt has an added word behind the end token's id.
IDS = [[724, 320, 500, 271, 600, 725, 725, 725], [724, 5, 727, 6, 725, 0, 0, 0]]


@torch.no_grad()
def text(name, act, eos, width, projection, layers, tensors):
    config = CLIPTextConfig(vocab_size=728, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=2,
                            hidden_act=act, max_position_embeddings=9, projection_dim=projection or width, bos_token_id=724, eos_token_id=eos,
                            pad_token_id=1)
    net = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
    names = fill(net)
    made = net(torch.tensor(IDS), output_hidden_states=True)
    # What StableDiffusionXLPipeline.encode_prompt takes.
    tensors[f'{name}.penultimate'] = made.hidden_states[-2]
    if projection:
        tensors[f'{name}.text_embeds'] = made[0]
        assert torch.equal(made[0], made.text_embeds)
    else:
        tensors[f'{name}.hidden'], tensors[f'{name}.pooled'] = made.last_hidden_state, made.pooler_output
    keep = {k: v for k, v in config.to_dict().items()}
    return dict(config=keep, names=names)


def main():
    torch.set_num_threads(1)
    tensors, about = {}, dict(ids=IDS, labels=LABELS, unets={}, texts={})
    about['unets']['like-sdxl'] = unet('like-sdxl', like_sdxl(), (7, 9), tensors, gradients=True)
    about['unets']['asymmetric'] = unet('asymmetric', asymmetric(), (5, 6), tensors)
    # Seeds under which f32 stays near f64: with two or three numbers in a group, some random networks amplify rounding a hundredfold.
    for seed in (0, 2, 3, 4, 5, 6, 7, 8):
        about['unets'][f'drawn-{seed}'] = unet(f'drawn-{seed}', drawn(seed), (5, 8), tensors)
    about['texts']['first'] = text('first', 'quick_gelu', 2, 10, None, 3, tensors)
    about['texts']['second'] = text('second', 'gelu', 2, 14, 11, 4, tensors)
    about['texts']['second-by-id'] = text('second-by-id', 'gelu', 725, 6, 5, 1, tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(HERE, 'sdxl.safetensors'))
    with open(os.path.join(HERE, 'sdxl.json.gz'), 'wb') as f:
        f.write(gzip.compress(json.dumps(about, separators=(',', ':')).encode(), mtime=0))
    print(sum(os.path.getsize(os.path.join(HERE, f'sdxl.{end}')) for end in ('json.gz', 'safetensors')), 'bytes')


if __name__ == '__main__':
    main()
