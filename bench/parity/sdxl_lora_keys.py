#!/usr/bin/env python3
"""Which keys of a LoRA for SDXL other programs leave over: ComfyUI and kohya's sd-scripts, by their own loading code.

    sdxl_lora_keys.py FILE... --comfy DIR --kohya DIR       checkouts of either; what is not given is not asked
    sdxl_lora_keys.py --self-test --comfy DIR --kohya DIR   on files written here: kohya's names, diffusers', ComfyUI's, and one misspelt

Both programs build their networks for SDXL base 1.0's shapes on PyTorch's `meta` device, so neither weights nor memory are needed; FILE has to
be made for those shapes (the folder of make_sdxl.py has them). ComfyUI: its model and its two text encoders, `model_lora_keys_unet`,
`model_lora_keys_clip`, `convert_lora` and `load_lora`, whose complaints of keys that are not loaded are counted. kohya's:
`create_network_from_weights`, then what `load_state_dict` says is unexpected. transformers 5 has no `text_model` around a plain text encoder, so it
gets one here: kohya's release was made for versions that have it. Exit 1 if any key is left over.

Needs requirements.txt and what the two ask for besides: einops, torchsde, torchvision, opencv-python-headless, sentencepiece, aiohttp. Their code
stays where it is; nothing of it belongs into this repository.
"""
import argparse
import logging
import os
import sys
import tempfile

import drawing  # noqa: F401 (keeps the libraries quiet and off the network)
import torch
from safetensors.torch import load_file, save_file

import make_sdxl
import sdxl_models

UNET_PREFIX = 'model.diffusion_model.'


class Ear(logging.Handler):
    """What the root logger was warned of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.heard = []

    def emit(self, record):
        self.heard.append(record.getMessage())


def listen():
    """An ear in the place of the handlers that the programs have set up, which would print every key."""
    ear = Ear()
    logging.getLogger().handlers[:] = [ear]
    return ear


def blank():
    """The four networks without numbers."""
    with torch.device('meta'):
        return sdxl_models.modules(make_sdxl.SPEC)


def by_comfy(path, files):
    """{file: keys that ComfyUI does not load}."""
    sys.path.insert(0, path)
    sys.argv = [sys.argv[0], '--cpu']
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.lora
    import comfy.lora_convert
    import comfy.model_detection
    import comfy.sdxl_clip

    tensors = sdxl_models.tensors_of(blank(), torch.float16)
    state = {k: v for k, v in sdxl_models.single_file(tensors, make_sdxl.SPEC).items() if k.startswith(UNET_PREFIX)}
    config = comfy.model_detection.model_config_from_unet(state, UNET_PREFIX)
    if type(config).__name__ != 'SDXL':
        raise SystemExit(f'ComfyUI takes the model for {type(config).__name__}, expected SDXL')
    # Here and not earlier, as ComfyUI sets the numbers' type after it has recognised a model.
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(state, UNET_PREFIX, device=torch.device('meta'))
    with torch.device('meta'):
        encoders = comfy.sdxl_clip.SDXLClipModel(device='meta', dtype=torch.float32)
    names = comfy.lora.model_lora_keys_clip(encoders, comfy.lora.model_lora_keys_unet(model, {}))
    places = {f'diffusion_model.{k}' for k in model.diffusion_model.state_dict()} | set(encoders.state_dict())
    out = {}
    for file in files:
        ear = listen()
        try:
            patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(load_file(file)), names)
        except KeyError as missing:
            out[file] = 0, [f'{missing} (missing, ComfyUI stops at it)']
            continue
        nowhere = [f'{key} (no such tensor)' for key in patches if (key if isinstance(key, str) else key[0]) not in places]
        out[file] = len(patches), ear.heard + nowhere
    return out


class Outer(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.text_model = encoder


def by_kohya(path, files):
    """{file: keys that sd-scripts does not load}."""
    # golden/networks.py has the name of their folder, and would be found before it.
    sys.path[:] = [path] + [folder for folder in sys.path if os.path.basename(folder) != 'golden']
    sys.modules.pop('networks', None)
    from library.sdxl_original_unet import SdxlUNet2DConditionModel
    from networks import lora

    parts = blank()
    first = parts['text_encoder']
    encoders = [first if hasattr(first, 'text_model') else Outer(first), parts['text_encoder_2']]
    listen()
    out = {}
    for file in files:
        with torch.device('meta'):
            network, weights = lora.create_network_from_weights(1., None, None, encoders, SdxlUNet2DConditionModel(), load_file(file), True)
        modules = network.text_encoder_loras + network.unet_loras
        for module in modules:
            network.add_module(module.lora_name, module)
        wanted = {key: value for key, value in network.state_dict().items() if '.org_module.' not in key}
        problems = []
        for key, value in weights.items():
            if key not in wanted:
                problems.append(f'{key} (unexpected)')
            elif wanted[key].shape != value.shape:
                problems.append(f'{key}: {list(value.shape)}, expected {list(wanted[key].shape)}')
        problems += [f'{key} (missing)' for key in wanted if key not in weights and not key.endswith('.alpha')]
        out[file] = len(modules), problems
    return out


def examples(folder):
    """{file: whether something in it is wrong}, of rank 1, in the dialects that tools write."""
    parts = blank()
    flat, dotted, comfy = {}, {}, {}
    prefixes = {'unet': ('lora_unet_', 'unet.'), 'text_encoder': ('lora_te1_', 'text_encoder.'), 'text_encoder_2': ('lora_te2_', 'text_encoder_2.')}
    for component, (short, long) in prefixes.items():
        for name, module in parts[component].named_modules():
            wanted = '.attn2.to_' in name or '.attn1.to_' in name or '.ff.net.' in name or 'self_attn.' in name or '.mlp.fc' in name
            if not wanted or not isinstance(module, torch.nn.Linear):
                continue
            name = sdxl_models.public_name(component, name)
            down, up = torch.ones(1, module.in_features, dtype=torch.float16), torch.ones(module.out_features, 1, dtype=torch.float16)
            if component == 'unet':
                old = sdxl_models.unet_name(f'{name}.weight', make_sdxl.SPEC['unet']).removesuffix('.weight')
            else:
                old = name
            key = short + old.replace('.', '_')
            flat |= {f'{key}.lora_down.weight': down, f'{key}.lora_up.weight': up, f'{key}.alpha': torch.tensor(1.)}
            dotted |= {f'{long}{name}.lora_A.weight': down, f'{long}{name}.lora_B.weight': up}
            where = {'unet': 'diffusion_model.', 'text_encoder': 'text_encoders.clip_l.transformer.',
                     'text_encoder_2': 'text_encoders.clip_g.transformer.'}[component]
            comfy |= {f'{where}{old}.lora_A.weight': down, f'{where}{old}.lora_B.weight': up}
    wrong = dict(flat)
    module = next(iter(flat)).split('.')[0]
    for key in [key for key in flat if key.startswith(f'{module}.')]:
        wrong[key.replace('_attn', '_atn')] = wrong.pop(key)
    # Names of diffusers' blocks behind kohya's prefix, as some trainers of SDXL write them.
    half = {k: v for k, v in dotted.items() if k.startswith('unet.')}
    mixed = {}
    for k, v in half.items():
        module, kind = k.removeprefix('unet.').rsplit('.lora_', 1)
        mixed[f'lora_unet_{module.replace(".", "_")}.lora_{"down" if kind[0] == "A" else "up"}.weight'] = v
    out = {}
    # ComfyUI knows diffusers' dotted names of a U-Net's attention only with `.processor.` in them, as diffusers wrote them before PEFT.
    for name, tensors, bad in (('kohya', flat, ()), ('kohya-diffusers', mixed, ()), ('peft', dotted, ('kohya', 'comfy')), ('comfy', comfy, ('kohya',)),
                               ('misspelt', wrong, ('kohya', 'comfy'))):
        file = os.path.join(folder, f'{name}.safetensors')
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, file)
        out[file] = bad
    return out


def report(program, found):
    good = True
    for file, (taken, problems) in found.items():
        print(f'{program:6} {os.path.basename(file):32} {taken} modules taken, {len(problems)} keys left over', flush=True)
        for problem in problems[:5]:
            print(f'         {problem}')
        good &= not problems and taken > 0
    return good


def self_test(args):
    good = True
    with tempfile.TemporaryDirectory() as folder:
        made = examples(folder)
        for program, ask in (('kohya', by_kohya), ('comfy', by_comfy)):
            if getattr(args, program):
                for file, found in ask(getattr(args, program), made).items():
                    if report(program, {file: found}) == (program in made[file]):
                        print(f'         expected {"keys left over" if program in made[file] else "none"}')
                        good = False
    return good


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('files', nargs='*', metavar='FILE')
    p.add_argument('--comfy', metavar='DIR', help='a checkout of ComfyUI')
    p.add_argument('--kohya', metavar='DIR', help="a checkout of kohya's sd-scripts")
    p.add_argument('--self-test', action='store_true')
    args = p.parse_args()
    if bool(args.files) == args.self_test or not (args.comfy or args.kohya):
        p.error('give FILE or --self-test, and --comfy DIR or --kohya DIR')
    if args.self_test:
        raise SystemExit(0 if self_test(args) else 1)
    good = True
    if args.kohya:
        good &= report('kohya', by_kohya(args.kohya, args.files))
    if args.comfy:
        good &= report('comfy', by_comfy(args.comfy, args.files))
    raise SystemExit(0 if good else 1)


if __name__ == '__main__':
    main()
