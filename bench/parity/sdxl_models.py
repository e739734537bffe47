"""Random SDXL models: configurations, weights with sane activations, folders and single files as they are published.

`CASES`                                -> {name: what is special about a small model}.
`configuration(case)`                  -> the constructor arguments of every part.
`build(spec, seed)`                    -> the four parts, with random weights.
`write(parts, spec, folder, dtype)`    -> a StableDiffusionXLPipeline folder.
`single_file(tensors, spec)`           -> {name in Stability AI's layout: tensor}, that folder as one file.

The vocabulary is CLIP's own; the first tokenizer pads with the end token, the second with `!`, which is number 0.
"""
import json
import os
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import make_sd14

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'golden'))
import ldm_names
import networks

WORDS, START, END = 49408, 49406, 49407
PADS = {'tokenizer': '<|endoftext|>', 'tokenizer_2': '!'}
LABEL_EMB = {'add_embedding.linear_1': 'label_emb.0.0', 'add_embedding.linear_2': 'label_emb.0.2'}
FIRST, SECOND = 'conditioner.embedders.0.transformer.', 'conditioner.embedders.1.model.'
NETWORKS = ('text_encoder', 'text_encoder_2', 'unet', 'vae')
TIME_IDS = 6                                                             # original size, crop, target size

EULER = dict(_class_name='EulerDiscreteScheduler', _diffusers_version='0.19.0.dev0', beta_start=.00085, beta_end=.012,
             beta_schedule='scaled_linear', num_train_timesteps=1000, trained_betas=None, clip_sample=False, interpolation_type='linear',
             prediction_type='epsilon', sample_max_value=1., set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1,
             timestep_spacing='leading', use_karras_sigmas=False)


def unet_of(widths, heads, depths, context, pooled, time, groups, layers=2, sample_size=16, ones=False):
    """A depth of 0 makes a level without transformers, as SDXL's first is; published files say 1 for it, as with `ones`."""
    down, up = networks.unet_types([depth != 0 for depth in depths])
    return dict(sample_size=sample_size, block_out_channels=widths, layers_per_block=layers, down_block_types=down, up_block_types=up,
                attention_head_dim=heads, transformer_layers_per_block=[depth or int(ones) for depth in depths], cross_attention_dim=context, norm_num_groups=groups,
                use_linear_projection=True, addition_embed_type='text_time', addition_time_embed_dim=time,
                projection_class_embeddings_input_dim=pooled + TIME_IDS * time)


def text_of(hidden, heads, layers, act, projection=None, published=True):
    """`published`: the special tokens' numbers are those of the published files, which name none of the vocabulary's and make transformers
    pool at the largest number; otherwise CLIP's own, and it pools at the first end token."""
    special = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1) if published else dict(bos_token_id=START, eos_token_id=END, pad_token_id=END)
    return dict(vocab_size=WORDS, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers, num_attention_heads=heads,
                hidden_act=act, max_position_embeddings=77, projection_dim=projection or hidden, **special)


def small(depths=(0, 2, 3), widths=(16, 32, 48), heads=(1, 2, 3), first=(40, 4), second=(24, 3), pooled=24, time=8, groups=8, layers=2,
          vae=(16, 24, 32), ones=False, published=True, zeros=True, **scheduler):
    return dict(unet=unet_of(list(widths), list(heads), list(depths), first[0] + second[0], pooled, time, groups, layers, ones=ones),
                vae=networks.vae_of(list(vae), 1, 8, 64, .13025),
                text_encoder=text_of(*first, 3, 'quick_gelu', published=published),
                text_encoder_2=text_of(*second, 4, 'gelu', pooled, published), zeros=zeros, scheduler=EULER | scheduler)


CASES = {
    'base': dict(),
    'v-prediction': dict(depths=(1, 2), widths=(24, 40), heads=(3, 5), zeros=False, prediction_type='v_prediction'),
    'zero-snr': dict(ones=True, prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing'),
    # Everything that may be odd about the encoders, one layer a level, an autoencoder of factor 8.
    'odd-widths': dict(depths=(0, 1, 2), widths=(12, 24, 36), heads=(1, 2, 4), groups=6, layers=1, first=(24, 2), second=(45, 5), pooled=31, time=10,
                       vae=(8, 16, 16, 24), published=False, zeros=False, timestep_spacing='linspace'),
    # Trailing steps with epsilon, and no force_zeros_for_empty_prompt.
    'trailing': dict(depths=(2, 1), widths=(16, 32), heads=(2, 2), zeros=False, timestep_spacing='trailing'),
}


def configuration(case):
    return small(**CASES[case])


def modules(spec):
    """The four networks, with whatever weights they begin with."""
    return dict(text_encoder=CLIPTextModel(CLIPTextConfig(**spec['text_encoder'])),
                text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**spec['text_encoder_2'])),
                unet=UNet2DConditionModel(**spec['unet']), vae=AutoencoderKL(**spec['vae']))


@torch.no_grad()
def build(spec, seed):
    """Random weights; the outputs of U-Net and decoder are scaled as trained networks' are."""
    g = torch.Generator().manual_seed(seed)
    parts = {name: part.eval() for name, part in modules(spec).items()}
    for part in parts.values():
        networks.randomise(part, g)
    unet, vae, config = parts['unet'], parts['vae'], spec['unet']
    side = config['sample_size']
    pooled = config['projection_class_embeddings_input_dim'] - TIME_IDS * config['addition_time_embed_dim']
    added = dict(text_embeds=torch.randn(2, pooled, generator=g), time_ids=torch.tensor([[64., 64., 0., 0., 64., 64.]] * 2))
    x = torch.randn(2, 4, side, side, generator=g)
    context = torch.randn(2, 8, config['cross_attention_dim'], generator=g)
    networks.scale_to(unet.conv_out, unet(x, torch.tensor([801, 21]), context, added_cond_kwargs=added).sample, .9)
    z = torch.randn(1, 4, side, side, generator=g) / spec['vae']['scaling_factor']
    networks.scale_to(vae.decoder.conv_out, vae.decode(z).sample, .5)
    return parts


def public_name(component, name):
    """transformers 5 leaves `text_model.` out of a plain text encoder's names; files have it."""
    plain = component.startswith('text_encoder') and not name.startswith(('text_model.', 'text_projection.'))
    return f'text_model.{name}' if plain else name


def tensors_of(parts, dtype):
    """{component: {published name: tensor}}, position ids left out."""
    return {component: {public_name(component, name): t.detach().to(dtype).contiguous() for name, t in part.state_dict().items()
                        if not name.endswith('position_ids')} for component, part in parts.items()}


def write(parts, spec, folder, dtype=torch.float32, variant=None):
    """A complete pipeline folder; returns its tensors."""
    tensors = tensors_of(parts, dtype)
    for name, values in tensors.items():
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        stem = 'model' if name.startswith('text') else 'diffusion_pytorch_model'
        save_file(values, os.path.join(folder, name, '.'.join(filter(None, (stem, variant, 'safetensors')))), metadata={'format': 'pt'})
    write_rest(parts, spec, folder)
    return tensors


def write_rest(parts, spec, folder):
    """Everything of a folder that is no weight."""
    for name, part in parts.items():
        where = os.path.join(folder, name)
        if name.startswith('text'):
            part.config.architectures = [type(part).__name__]
            part.config.save_pretrained(where)
        else:
            part.save_config(where)
    for name, pad in PADS.items():
        where = os.path.join(folder, name)
        make_sd14.tokenizer(where)
        make_sd14.write(os.path.join(where, 'tokenizer_config.json'), make_sd14.TOKENIZER | {'pad_token': pad})
        special = {key: make_sd14.TOKENIZER[key] for key in ('bos_token', 'eos_token', 'unk_token')}
        make_sd14.write(os.path.join(where, 'special_tokens_map.json'), special | {'pad_token': pad})
    networks.write_json(spec['scheduler'], folder, 'scheduler', 'scheduler_config.json')
    index = {'_class_name': 'StableDiffusionXLPipeline', '_diffusers_version': '0.19.0.dev0', 'force_zeros_for_empty_prompt': spec['zeros'],
             'add_watermarker': None, 'scheduler': ['diffusers', spec['scheduler']['_class_name']],
             'text_encoder': ['transformers', 'CLIPTextModel'], 'text_encoder_2': ['transformers', 'CLIPTextModelWithProjection'],
             'tokenizer': ['transformers', 'CLIPTokenizer'], 'tokenizer_2': ['transformers', 'CLIPTokenizer'],
             'unet': ['diffusers', 'UNet2DConditionModel'], 'vae': ['diffusers', 'AutoencoderKL']}
    networks.write_json(index, folder, 'model_index.json')


def unet_name(name, config):
    module, kind = name.rsplit('.', 1)
    if module in LABEL_EMB:
        return f'{LABEL_EMB[module]}.{kind}'
    crossing_up = [t.startswith('CrossAttn') for t in config['up_block_types']]
    return ldm_names.unet_name(name, config['layers_per_block'], len(config['block_out_channels']), crossing_up)


def single_file(tensors, spec):
    """The folder's tensors under the names of a single file: the second encoder as OpenCLIP has it, its projection transposed."""
    out = {f'model.diffusion_model.{unet_name(k, spec["unet"])}': v for k, v in tensors['unet'].items()}
    for k, v in tensors['vae'].items():
        k = f'first_stage_model.{ldm_names.vae_name(k, len(spec["vae"]["block_out_channels"]))}'
        out[k] = ldm_names.vae_tensor(k, v)
    out |= {FIRST + k: v for k, v in tensors['text_encoder'].items()}
    second = dict(tensors['text_encoder_2'])
    out[SECOND + 'text_projection'] = second.pop('text_projection.weight').T.contiguous()
    for k, v in ldm_names.openclip(second, spec['text_encoder_2']['num_hidden_layers']).items():
        out[k.replace('cond_stage_model.model.', SECOND)] = v
    return out


def read_json(*path):
    with open(os.path.join(*path)) as f:
        return json.load(f)
