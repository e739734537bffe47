"""The networks of metrics and detectors in PyTorch, with weights that a formula determines, so that no file of weights is needed.

    OMP_NUM_THREADS=1 ~/scumble-bench/bin/python crates/eval/tests/golden/networks.py

prints the literals of tests/lpips.rs, tests/inception.rs and tests/detectors.rs. Made with torch 2.15.0, torchvision 0.29.2, lpips 0.1.4,
pytorch-fid 0.3.0, clean-fid 0.1.35. The formula is bench/formula.py's; ../common/mod.rs says how weights are scaled.
"""
import math
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[4] / 'bench'))
import formula

torch.set_grad_enabled(False)


def fill(module, rename=lambda name: name):
    for name, t in module.state_dict().items():
        name = rename(name)
        if name is None or t.ndim == 0:
            continue
        if t.ndim == 1:
            scale, offset = (.5, 1.) if name.endswith('running_var') else (.1, 1.) if name.endswith('weight') else (.1, None)
        elif name.startswith('lin'):
            scale, offset = .5, .5
        else:
            scale, offset = math.sqrt(6 / math.prod(t.shape[1:])), None
        formula.fill(t, name, scale, offset)
    return module.eval()


def picture(k, width, height):
    x, y, c = np.arange(width)[None, :, None], np.arange(height)[:, None, None], np.arange(3)[None, None, :]
    return ((x * x * (k + 1) // 8 + y * (13 - k) // 3 + x * y // 16 + c * 101 + k * 37) % 256).astype(np.uint8)


def tensor(p):
    return torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1)[None]


def show(name, values):
    print(name, '[' + ', '.join(f'{float(v):.9g}' for v in values) + ']')


def lpips_numbers():
    import lpips

    def rename(name):
        if name.startswith('scaling_layer') or name.startswith('lins.'):
            return None
        if name.startswith('net.slice'):
            return 'features.' + name.split('.', 2)[2]
        return name

    for net in 'alex', 'vgg':
        model = fill(lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False), rename)
        for w, h in (64, 64), (45, 33):
            values = [model(tensor(picture(a, w, h)) / 127.5 - 1, tensor(picture(b, w, h)) / 127.5 - 1).item()
                      for a, b in ((0, 1), (2, 3), (5, 1))]
            show(f'lpips {net} {w}x{h}', values)


def resnet_numbers():
    import torchvision
    for name in 'resnet18', 'resnet50':
        model = fill(getattr(torchvision.models, name)(weights=None, num_classes=5))
        x = torch.cat([tensor(picture(k, 64, 64)) / 255 for k in (0, 4)])
        x = (x - torch.tensor([.485, .456, .406])[:, None, None]) / torch.tensor([.229, .224, .225])[:, None, None]
        show(name, model(x).flatten())


def inception_numbers():
    import pytorch_fid.inception as pf
    import torchvision.models.inception as tv
    import cleanfid.resize
    pf.load_state_dict_from_url = lambda *a, **k: None
    load = tv.Inception3.load_state_dict
    tv.Inception3.load_state_dict = lambda self, state: fill(self)
    model = pf.InceptionV3([3]).eval()
    tv.Inception3.load_state_dict = load
    net = torch.nn.Sequential(*model.blocks)
    picks = list(range(0, 2048, 256))

    small = tensor(picture(0, 99, 83)) / 127.5 - 1
    f = net(small).flatten()
    show('inception 99x83', [*f[picks], f.mean(), f.abs().max()])

    for w, h in (40, 28), (512, 400):
        p = picture(2, w, h)
        f = model(tensor(p) / 255)[0].flatten()
        show(f'fid-legacy-pt {w}x{h}', [*f[picks], f.mean()])
        resized = torch.nn.functional.interpolate(tensor(p) / 255, size=(299, 299), mode='bilinear', align_corners=False)
        r = resized[0] * 2 - 1
        show(f'resized legacy {w}x{h}', [r[0, 0, 0], r[1, 10, 200], r[2, 298, 298], r[0, 150, 151], r[1, 77, 3]])
        clean = cleanfid.resize.build_resizer('clean')(p)
        c = (torch.from_numpy(clean).permute(2, 0, 1) - 128) / 128
        show(f'resized clean {w}x{h}', [c[0, 0, 0], c[1, 10, 200], c[2, 298, 298], c[0, 150, 151], c[1, 77, 3]])
        f = net(c[None]).flatten()
        show(f'fid-clean {w}x{h}', [*f[picks], f.mean()])


if __name__ == '__main__':
    for name in sys.argv[1:] or ['lpips', 'resnet', 'inception']:
        globals()[name + '_numbers']()
