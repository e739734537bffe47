"""The names of a Stable Diffusion in one LDM file (`model.diffusion_model...`, `first_stage_model...`, `cond_stage_model...`).

The installed diffusers reads such files but ships no writer, so the rule is written here from the layout itself. Its proof is that
diffusers' `from_single_file` gives back every tensor (make_references.py checks that each time it writes such a file).
"""
import re

import torch

RESNET = {'norm1': 'in_layers.0', 'conv1': 'in_layers.2', 'time_emb_proj': 'emb_layers.1', 'norm2': 'out_layers.0',
          'conv2': 'out_layers.3', 'conv_shortcut': 'skip_connection'}
TOP = {'time_embedding.linear_1': 'time_embed.0', 'time_embedding.linear_2': 'time_embed.2', 'conv_in': 'input_blocks.0.0',
       'conv_norm_out': 'out.0', 'conv_out': 'out.2'}
OPENCLIP = {'layer_norm1': 'ln_1', 'layer_norm2': 'ln_2', 'mlp.fc1': 'mlp.c_fc', 'mlp.fc2': 'mlp.c_proj', 'self_attn.out_proj': 'attn.out_proj'}


def unet_name(name, layers, levels, crossing_up):
    """One U-Net tensor. Each input block is a residual block (+ transformer) or a downsampler; each output block also holds the
    upsampler that follows it, behind its transformer where there is one."""
    module, kind = name.rsplit('.', 1)
    if module in TOP:
        return f'{TOP[module]}.{kind}'

    def inner(kept):                                       # what follows `resnets.j.` or `attentions.j.`
        return RESNET.get(kept, kept)

    if m := re.fullmatch(r'mid_block\.(resnets|attentions)\.(\d)\.(.*)', module):
        position = {('resnets', '0'): 0, ('attentions', '0'): 1, ('resnets', '1'): 2}[m[1], m[2]]
        return f'middle_block.{position}.{inner(m[3])}.{kind}'
    m = re.fullmatch(r'(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)', module)
    way, level, what, j, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
    if way == 'down':
        first = 1 + level * (layers + 1)
        if what == 'downsamplers':
            return f'input_blocks.{first + layers}.0.op.{kind}'
        return f'input_blocks.{first + j}.{0 if what == "resnets" else 1}.{inner(rest)}.{kind}'
    first = level * (layers + 1)
    if what == 'upsamplers':
        return f'output_blocks.{first + layers}.{2 if crossing_up[level] else 1}.conv.{kind}'
    return f'output_blocks.{first + j}.{0 if what == "resnets" else 1}.{inner(rest)}.{kind}'


def vae_name(name, levels):
    """One VAE tensor; the decoder's levels are counted from the picture's side in LDM, from the latents' in diffusers."""
    for new, old in (('to_q', 'q'), ('to_k', 'k'), ('to_v', 'v'), ('to_out.0', 'proj_out'), ('query', 'q'), ('key', 'k'),
                     ('value', 'v'), ('proj_attn', 'proj_out'), ('group_norm', 'norm')):
        name = name.replace(f'mid_block.attentions.0.{new}.', f'mid.attn_1.{old}.')
    name = re.sub(r'mid_block\.resnets\.(\d)\.', lambda m: f'mid.block_{int(m[1]) + 1}.', name)
    name = re.sub(r'down_blocks\.(\d)\.resnets\.', r'down.\1.block.', name)
    name = re.sub(r'up_blocks\.(\d)\.resnets\.', lambda m: f'up.{levels - 1 - int(m[1])}.block.', name)
    name = re.sub(r'down_blocks\.(\d)\.downsamplers\.0\.', r'down.\1.downsample.', name)
    name = re.sub(r'up_blocks\.(\d)\.upsamplers\.0\.', lambda m: f'up.{levels - 1 - int(m[1])}.upsample.', name)
    return name.replace('conv_norm_out', 'norm_out').replace('conv_shortcut', 'nin_shortcut')


def vae_tensor(name, tensor):
    """LDM's middle attention is made of 1 x 1 convolutions."""
    attention = '.mid.attn_1.' in name and tensor.dim() == 2
    return tensor[:, :, None, None].contiguous() if attention else tensor


def openclip(text, layers):
    """OpenCLIP's text tower: q, k and v in one matrix, and a last block that Stable Diffusion 2 does not use."""
    inner = 'text_model.encoder.layers.{}.'
    out = {'positional_embedding': text['text_model.embeddings.position_embedding.weight'],
           'token_embedding.weight': text['text_model.embeddings.token_embedding.weight'],
           'ln_final.weight': text['text_model.final_layer_norm.weight'], 'ln_final.bias': text['text_model.final_layer_norm.bias']}
    # Released files hold 24 blocks of which 23 are read. Readers know block 23 by its number, so a shorter tower gets no such block.
    blocks = [*range(layers), layers - 1] if layers == 23 else range(layers)
    for number, source in enumerate(blocks):
        for kind in ('weight', 'bias'):
            fused = [text[f'{inner.format(source)}self_attn.{p}_proj.{kind}'] for p in 'qkv']
            out[f'transformer.resblocks.{number}.attn.in_proj_{kind}'] = torch.cat(fused)
            for new, old in OPENCLIP.items():
                out[f'transformer.resblocks.{number}.{old}.{kind}'] = text[f'{inner.format(source)}{new}.{kind}'].clone()
    return {f'cond_stage_model.model.{k}': v for k, v in out.items()}


def single_file(tensors, unet_config, vae_config, text_config):
    """{LDM name: tensor} of {component: {diffusers name: tensor}}."""
    levels, layers = len(unet_config['block_out_channels']), unet_config['layers_per_block']
    crossing_up = [t.startswith('CrossAttn') for t in unet_config['up_block_types']]
    out = {f'model.diffusion_model.{unet_name(k, layers, levels, crossing_up)}': v for k, v in tensors['unet'].items()}
    for k, v in tensors['vae'].items():
        k = f'first_stage_model.{vae_name(k, len(vae_config["block_out_channels"]))}'
        out[k] = vae_tensor(k, v)
    if unet_config['use_linear_projection']:
        out |= openclip(tensors['text_encoder'], text_config['num_hidden_layers'])
    else:
        out |= {f'cond_stage_model.transformer.{k}': v for k, v in tensors['text_encoder'].items()}
    return out
