#!/usr/bin/env python3
"""Writes resnet.safetensors, beside this file, read by ../resnet.rs: two small ResNets of transformers, in evaluation and in training.

Inputs come from the formula of gradients.py. f32 on the CPU; batch norms have a momentum of 1, so that what they keep is of one batch.
torch 2.15.0, transformers 5.23.0:  OMP_NUM_THREADS=1 python crates/nn/tests/golden/resnet.py
"""
import json
import os

import torch
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetForImageClassification

HERE = os.path.dirname(os.path.abspath(__file__))
LABELS = {0: 'cat', 1: 'dog', 2: 'none of these'}
KINDS = {
    'basic': dict(embedding_size=6, hidden_sizes=[6, 10], depths=[1, 2], layer_type='basic'),
    'bottleneck': dict(embedding_size=4, hidden_sizes=[8, 16, 24], depths=[2, 1, 1], layer_type='bottleneck'),
}


def numbers(shape, stream):
    """Numbers in [-1, 1] that look random and are the same in every language."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    return (((i * i + i * 7919 + stream * 104729) % 1009).double() / 504 - 1).float().reshape(shape)


def one(name, sizes, out):
    config = ResNetConfig(**sizes, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    torch.manual_seed(7)
    net = ResNetForImageClassification(config)
    for i, (key, p) in enumerate(list(net.named_parameters()) + list(net.named_buffers())):
        if p.is_floating_point():
            u = numbers(p.shape, 10 + i)
            # Around what each begins at, so that no channel is dead.
            base = 1.0 if key.endswith(('running_var', 'normalization.weight')) else 0.0
            p.data = base + 0.4 * u
            out[f'{name}.{key}'] = p.data.clone()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    x = numbers([3, 3, 40, 32], 5).requires_grad_()
    answers = torch.tensor([2, 0, 1])
    for mode in ('eval', 'train'):
        net.train(mode == 'train')
        net.zero_grad()
        x.grad = None
        logits = net(x).logits
        loss = torch.nn.functional.cross_entropy(logits, answers)
        loss.backward()
        out[f'{name}.{mode}.logits'], out[f'{name}.{mode}.x'] = logits.detach(), x.grad.clone()
        if mode == 'train':
            out[f'{name}.train.loss'] = loss.detach().reshape(1)
            for key, p in net.named_parameters():
                out[f'{name}.train.gradient.{key}'] = p.grad.clone()
            for key, p in net.named_buffers():
                if p.is_floating_point():
                    out[f'{name}.train.kept.{key}'] = p.clone()
    return json.loads(config.to_json_string())


if __name__ == '__main__':
    tensors, configs = {}, {}
    for kind, sizes in KINDS.items():
        configs[kind] = json.dumps(one(kind, sizes, tensors))
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, os.path.join(HERE, 'resnet.safetensors'), metadata=configs)
