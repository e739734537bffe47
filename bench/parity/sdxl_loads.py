#!/usr/bin/env python3
"""Proof that diffusers loads what scumble writes for SDXL, tensor for tensor, and draws the same picture from it.

    sdxl_loads.py FOLDER --base DIR [--scumble FILE] [--expected DIR]
    sdxl_loads.py --self-test                                            the loading half alone, on files written here

FOLDER is searched for pipeline folders, single files, LoRAs, textual inversions of both encoders and partial files (tensors by name); what a
file is is told by its keys. --base is the pipeline folder that LoRAs, words and partial files belong to, and that describes single files.

- folder: from_pretrained; single: from_single_file with config=BASE; both must hold every tensor under its name and none besides, and the numbers
  of --expected (without it: of one another).
- lora: load_lora_weights must take every module in the file, none of another shape.
- word: load_textual_inversion once for each encoder, `clip_l` and `clip_g`; the word is the metadata's `name`, or else the file's name.
- partial: every tensor has a home.

With --scumble the program draws from each of them as well (8 steps, Euler, guidance 5, as in sdxl.py), and no number of the pictures may be
more than 2/255 apart. A picture that is the base's proves nothing: exit 2, unless --unchanged says that it is to be so. Exit 1 if anything is wrong.
"""
import argparse
import glob
import os
import tempfile

import drawing                                                           # keeps the libraries quiet and off the network
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sdxl
import sdxl_models

PROMPT = 'a church in ink style'


class Wrong(Exception):
    """What is said of an item that does not load as it should."""


def kind_of(path):
    """What a .safetensors file is, by its keys; None if nothing known."""
    with safe_open(path, 'pt') as file:
        keys = list(file.keys())
    if {'clip_l', 'clip_g'} & set(keys):
        return 'word'
    if any(k.startswith('conditioner.embedders.') for k in keys):
        return 'single'
    if any('.lora_' in k or '.lora.' in k for k in keys):
        return 'lora'
    return 'partial' if any(k.split('.')[0] in (*sdxl_models.NETWORKS, 'down_blocks', 'up_blocks', 'mid_block') for k in keys) else None


def items(folder):
    """(kind, path) of everything below, in order."""
    pipelines = [os.path.dirname(path) for path in glob.glob(f'{glob.escape(folder)}/**/model_index.json', recursive=True)]
    files = [path for path in glob.glob(f'{glob.escape(folder)}/**/*.safetensors', recursive=True)
             if not any(path.startswith(pipeline + os.sep) for pipeline in pipelines)]
    return sorted([('folder', path) for path in pipelines] + [(kind_of(path), path) for path in files], key=lambda item: item[1])


def parts_of(pipe):
    return {name: getattr(pipe, name) for name in sdxl_models.NETWORKS}


def weights(pipe):
    """{component.published name: tensor}."""
    return {f'{component}.{name}': value for component, values in sdxl_models.tensors_of(parts_of(pipe), torch.float32).items()
            for name, value in values.items()}


def spec_of(pipe):
    return {name: dict(part.config) if name in ('unet', 'vae') else part.config.to_dict() for name, part in parts_of(pipe).items()}


def same_names(found, wanted):
    """Position ids and their like carry no weight."""
    found = {name for name in found if not name.endswith('position_ids') and not name.endswith('logit_scale')}
    missing, extra = sorted(set(wanted) - found), sorted(found - set(wanted))
    if missing or extra:
        raise Wrong(f'{len(missing)} names are missing, first {missing[:2]}; {len(extra)} are too many, first {extra[:2]}')


def load_folder(path, base):
    pipe = sdxl.load(path)
    found = []
    for component in sdxl_models.NETWORKS:
        for file in glob.glob(f'{glob.escape(path)}/{component}/*.safetensors'):
            with safe_open(file, 'pt') as opened:
                found += [f'{component}.{key}' for key in opened.keys()]
    same_names(found, weights(pipe))
    return pipe


def load_single(path, base):
    pipe = StableDiffusionXLPipeline.from_single_file(path, config=base, local_files_only=True, torch_dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    with safe_open(path, 'pt') as file:
        found = list(file.keys())
    same_names(found, sdxl_models.single_file(sdxl_models.tensors_of(parts_of(pipe), torch.float32), spec_of(pipe)))
    return pipe


def load_lora(path, base):
    pipe = sdxl.load(base)
    try:
        pipe.load_lora_weights(os.path.dirname(os.path.abspath(path)), weight_name=os.path.basename(path))
    except (RuntimeError, ValueError, KeyError) as problem:
        raise Wrong(f'diffusers refuses it: {str(problem)[:300]}') from problem
    taken = {name: sum(hasattr(m, 'lora_A') for m in part.modules()) for name, part in parts_of(pipe).items()}
    given = {key.split('.lora')[0] for key in load_file(path) if '.lora' in key}
    if sum(taken.values()) != len(given):
        raise Wrong(f'{len(given)} modules in the file, diffusers took {taken}')
    return pipe


def word_of(path):
    """What a word is called: in the file's metadata, as scumble writes it, or else by the file's name."""
    with safe_open(path, 'pt') as file:
        return (file.metadata() or {}).get('name') or os.path.splitext(os.path.basename(path))[0]


def load_word(path, base):
    pipe = sdxl.load(base)
    vectors, word = load_file(path), word_of(path)
    same_names(vectors, ['clip_l', 'clip_g'])
    for key, encoder, tokenizer in (('clip_l', pipe.text_encoder, pipe.tokenizer), ('clip_g', pipe.text_encoder_2, pipe.tokenizer_2)):
        width = encoder.config.hidden_size
        if vectors[key].shape[-1] != width:
            raise Wrong(f'{key} is {list(vectors[key].shape)}, its encoder is {width} wide')
        pipe.load_textual_inversion(vectors[key], token=word, text_encoder=encoder, tokenizer=tokenizer)
        first = tokenizer.convert_tokens_to_ids(word)
        table = encoder.get_input_embeddings().weight
        if not torch.equal(table[first], vectors[key].reshape(-1, width)[0].to(table.dtype)):
            raise Wrong(f'{key}: the embedding of `{word}` is not the vector in the file')
    return pipe


@torch.no_grad()
def load_partial(path, base):
    pipe = sdxl.load(base)
    homes = {}
    for component, part in parts_of(pipe).items():
        for name, value in part.state_dict().items():
            homes[f'{component}.{sdxl_models.public_name(component, name)}'] = value
    for key, value in load_file(path).items():
        home = homes.get(key, homes.get(f'unet.{key}'))
        if home is None or home.shape != value.shape:
            raise Wrong(f'{key} {list(value.shape)} fits no tensor of the model')
        home.copy_(value)
    return pipe


LOADERS = dict(folder=load_folder, single=load_single, lora=load_lora, word=load_word, partial=load_partial)


def apart(pipe, expected):
    """The largest difference of any number, relative to its tensor's largest."""
    found = weights(pipe)
    same_names(found, expected)
    return max(((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-12)).item() for name, value in expected.items())


def asked_of(kind, path, base):
    """The drawing, and which model `scumble generate` draws it from."""
    prompt = f'a {word_of(path)} in ink style' if kind == 'word' else PROMPT
    more = {'folder': ['--model', path], 'single': ['--model', path, '--config', base], 'lora': ['--model', base, '--lora', path],
            'word': ['--model', base, '--embedding', path], 'partial': ['--model', base, '--edit', path]}[kind]
    return sdxl.Drawing(sampler='euler', prompt=prompt), more


def picture(pipe, asked, file):
    sdxl.draw(pipe, pipe.scheduler.config, asked)[0].save(file)
    return file


def check(kind, path, args, work, expected):
    """(pipe, what there is to say). Raises Wrong."""
    if kind is None:
        raise Wrong('its keys are of no kind known here')
    pipe, says = LOADERS[kind](path, args.base), []
    if kind in ('folder', 'single') and expected:
        most = apart(pipe, expected)
        says.append(f'weights within {most:.1e}')
        if most > args.tolerance:
            raise Wrong(f"a weight is {most:.1e} of its tensor's largest off")
    asked, words = asked_of(kind, path, args.base)
    base = picture(sdxl.load(args.base), asked, f'{work}/base.png')
    theirs = picture(pipe, asked, f'{work}/theirs.png')
    moved = sdxl.difference(base, theirs)[0]
    says.append(f'moved {moved}/255')
    if args.scumble:
        ours = sdxl.generate(args.scumble, [*asked.words, *words], f'{work}/out', f'{work}/cache')[0]
        most = sdxl.difference(ours, theirs)[0]
        says.append(f'pictures {most}/255 apart')
        if most > args.most:
            raise Wrong(', '.join(says))
    return moved, ', '.join(says)


def check_all(args):
    found = items(args.folder)
    if not found:
        raise SystemExit(f'{args.folder}: nothing that could be loaded')
    expected, status = weights(sdxl.load(args.expected)) if args.expected else None, 0
    for kind, path in found:
        name = f'{kind or "?":8} {os.path.relpath(path, args.folder)}'
        with tempfile.TemporaryDirectory() as work:
            try:
                moved, says = check(kind, path, args, work, expected)
                if expected is None and kind in ('folder', 'single'):
                    expected = weights(LOADERS[kind](path, args.base))
            except (Wrong, RuntimeError, ValueError, KeyError) as problem:
                print(f'{name}: WRONG: {problem}', flush=True)
                status = 1
                continue
        still = moved <= 2 * args.most and not args.unchanged
        verdict = "THE BASE'S PICTURE" if still else 'ok'
        print(f'{name}: {says}, {verdict}', flush=True)
        status = max(status, 2 if still else 0, key=lambda s: (s == 1, s))
    return status


@torch.no_grad()
def examples(base, folder):
    """An edit of rank 2 of all cross-attention and of the encoders' attention in every form, and a word; returns {file that has to be refused}."""
    pipe, g = sdxl.load(base), torch.Generator().manual_seed(1)
    short = {'unet': 'lora_unet_', 'text_encoder': 'lora_te1_', 'text_encoder_2': 'lora_te2_'}
    kohya, peft, partial = {}, {}, {}
    for component, prefix in short.items():
        for name, w in parts_of(pipe)[component].state_dict().items():
            if not name.endswith('.weight') or not ('attn2.to_' in name or 'self_attn.' in name):
                continue
            down, up = torch.randn(2, w.shape[1], generator=g) * .3, torch.randn(w.shape[0], 2, generator=g) * .3
            w.add_(up @ down * .5)
            module = sdxl_models.public_name(component, name).removesuffix('.weight')
            old = sdxl_models.unet_name(name, spec_of(pipe)['unet']).removesuffix('.weight') if component == 'unet' else module
            key = prefix + old.replace('.', '_')
            kohya |= {f'{key}.lora_down.weight': down, f'{key}.lora_up.weight': up, f'{key}.alpha': torch.tensor(1.)}
            peft |= {f'{component}.{module}.lora_A.weight': down, f'{component}.{module}.lora_B.weight': up * .5}
            partial[f'{component}.{module}.weight'] = w
    spec = sdxl_models.configuration('base')
    tensors = sdxl_models.write(parts_of(pipe), spec, f'{folder}/folder')
    widths = {'clip_l': pipe.text_encoder.config.hidden_size, 'clip_g': pipe.text_encoder_2.config.hidden_size}
    misspelt, narrow = dict(peft), {k: torch.randn(2, v, generator=g) for k, v in widths.items()}
    key = next(iter(peft))
    misspelt[key.replace('attn2', 'atn2').replace('self_attn', 'self_atn')] = misspelt.pop(key)
    narrow['clip_g'] = narrow['clip_g'][:, :-1]
    single = sdxl_models.single_file(tensors, spec)
    short_file = dict(list(single.items())[:-1])
    files = {'single': single, 'kohya': kohya, 'peft': peft, 'partial': partial, 'misspelt': misspelt, 'sksword':
             {k: torch.randn(2, v, generator=g) for k, v in widths.items()}, 'sksnarrow': narrow, 'short': short_file}
    for name, content in files.items():
        save_file({k: v.contiguous().clone() for k, v in content.items()}, f'{folder}/{name}.safetensors')
    return {'misspelt', 'sksnarrow', 'short'}


def self_test(args):
    """Everything loads that has to; nothing that must not."""
    args.base = sdxl.make_model('base', args.models, False)
    with tempfile.TemporaryDirectory() as folder:
        refused = examples(args.base, folder)
        args.folder, good = folder, True
        expected, drawn = weights(sdxl.load(f'{folder}/folder')), {}
        for kind, path in items(folder):
            name = os.path.splitext(os.path.basename(path))[0]
            try:
                with tempfile.TemporaryDirectory() as work:
                    moved, says = check(kind, path, args, work, expected)
                    asked, _ = asked_of(kind, path, args.base)
                    drawn[name] = picture(LOADERS[kind](path, args.base), asked, f'{folder}/{name}.png')
                fine = name not in refused and moved > 2 * args.most
            except (Wrong, RuntimeError, ValueError, KeyError) as problem:
                fine, says = name in refused, f'refused: {str(problem)[:150]}'
            print(f'{kind or "?":8} {name}: {says}: {"as it has to be" if fine else "NOT AS IT HAS TO BE"}', flush=True)
            good &= fine
        for name in ('single', 'partial', 'kohya', 'peft'):
            most = sdxl.difference(drawn['folder'], drawn[name])[0] if {'folder', name} <= set(drawn) else 255
            good &= most <= args.most
            print(f'{name} and folder: pictures {most}/255 apart', flush=True)
    return 0 if good else 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', nargs='?', metavar='FOLDER')
    p.add_argument('--base', metavar='DIR')
    p.add_argument('--expected', metavar='DIR', help='a pipeline folder whose numbers folders and single files must hold')
    p.add_argument('--scumble', metavar='FILE', help='draw with it too')
    p.add_argument('--unchanged', action='store_true', help="the pictures are to be the base's")
    p.add_argument('--tolerance', type=float, default=0., metavar='X', help='of weights, relative (0; 1e-3 for files in f16)')
    p.add_argument('--most', type=int, default=2, metavar='N', help='largest difference of pictures, of 255 (2)')
    p.add_argument('--models', default='/tmp/sdxl-parity', metavar='DIR', help="of the self-test: sdxl.py's folder")
    p.add_argument('--self-test', action='store_true')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.self_test:
        raise SystemExit(self_test(args))
    if not args.folder or not args.base:
        p.error('give FOLDER and --base DIR, or --self-test')
    raise SystemExit(check_all(args))


if __name__ == '__main__':
    main()
