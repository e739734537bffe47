"""Which tensors of a U-Net the published ESD moves: weights and biases of Linear and Conv2d modules chosen by name."""
import torch

RULES = {'esd-x': lambda n: 'attn2' in n, 'esd-x-strict': lambda n: 'attn2.to_k' in n or 'attn2.to_v' in n,
         'esd-u': lambda n: 'attn2' not in n, 'esd-all': lambda n: True}


def trained(unet, method):
    """{tensor name: parameter} of the modules that the method may move."""
    out = {}
    for name, module in unet.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and RULES[method](name):
            out.update({f'{name}.{kind}': p for kind, p in module.named_parameters(recurse=False)})
    return out
