#!/usr/bin/env python3
"""Writes crates/nn/tests/golden/networks/: the three smallest complete models that still differ in everything a loader must tell apart.

    make_golden_networks.py [--out crates/nn/tests/golden/networks]

Weights in f16, references (f32) as make_references.py makes them. Prints each folder's size and f32's distance from f64.
"""
import argparse
import os
import shutil

import torch

import make_references
import networks


def sd1():
    """SD 1.x: heads as one integer, convolutions as projections, quick GELU, PNDM file, old VAE attention names, position_ids."""
    spec = networks.sd14(divisor=1000, groups=4, layers=2, positions=16, text_layers=2)
    spec['unet'].update(block_out_channels=[8, 8, 8, 8], attention_head_dim=4, cross_attention_dim=12, sample_size=8)
    spec['vae'] = networks.vae_of([4, 4, 8], 2, 2, 32, .18215)
    spec['text'] = networks.text_of(12, 2, 3, 'quick_gelu', 16)
    return spec


def sd2():
    """SD 2.x: a list of heads, linear projections, exact GELU, v prediction, padding with id 0."""
    spec = networks.sd21v(divisor=1000, groups=4, layers=1, positions=16)
    spec['unet'].update(block_out_channels=[8, 8, 12, 12], attention_head_dim=[1, 2, 3, 4], cross_attention_dim=12, sample_size=8)
    spec['vae'] = networks.vae_of([4, 4, 8], 1, 2, 32, .18215)
    spec['text'] = networks.text_of(12, 3, 2, 'gelu', 16, pad=0)
    return spec


def odd():
    """Two levels, cross attention only in the upper one, its up path likewise; three groups; a width that no power of two divides."""
    down, up = networks.unet_types([True, False])
    unet = dict(sample_size=6, block_out_channels=[6, 15], layers_per_block=2, down_block_types=down, up_block_types=up,
                attention_head_dim=[2, 5], cross_attention_dim=10, norm_num_groups=3, use_linear_projection=False)
    scheduler = dict(_class_name='DDIMScheduler', _diffusers_version='0.42.1', prediction_type='epsilon', steps_offset=1,
                     set_alpha_to_one=True, clip_sample=False, timestep_spacing='trailing', **networks.SD_BETAS)
    return dict(unet=unet, vae=networks.vae_of([3, 9], 1, 3, 12, .5), text=networks.text_of(10, 2, 1, 'gelu', 11, intermediate=30),
                scheduler=scheduler, pad=networks.END, old_vae_names=False, position_ids=False)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', default=os.path.join(networks.ROOT, 'crates', 'nn', 'tests', 'golden', 'networks'))
    args = p.parse_args()
    torch.set_num_threads(1)
    # Seeds under which f32 stays near f64: with two or three numbers in a group, some random networks amplify rounding a hundredfold.
    for make, seed in ((sd1, 0), (sd2, 4), (odd, 2)):
        folder = os.path.join(args.out, make.__name__)
        shutil.rmtree(folder, ignore_errors=True)
        make_references.make_folder(make(), seed, os.path.join(folder, 'model'), torch.float16)
        floor = make_references.make_reference(os.path.join(folder, 'model'), os.path.join(folder, 'reference.safetensors'), 11 + seed,
                                               'a church in ink style', 4, 3., True)
        size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files)
        print(f'{make.__name__}: {size / 1024:.0f} KiB, f32 is within {max(floor.values()):.1e} of f64')


if __name__ == '__main__':
    main()
