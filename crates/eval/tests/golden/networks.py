"""The networks of metrics and detectors in PyTorch, with weights that a formula determines, so that no file of weights is needed.

    OMP_NUM_THREADS=1 ~/scumble-bench/bin/python crates/eval/tests/golden/networks.py

prints the literals of tests/lpips.rs, tests/inception.rs, tests/detectors.rs, tests/nudenet.rs and tests/structure.rs. Made with torch 2.15.0, torchvision 0.29.2, lpips 0.1.4,
pytorch-fid 0.3.0, clean-fid 0.1.35, transformers 5.23.0, nudenet 3.4.2, onnx 1.23.2; `onnx` also writes classifier.onnx and yolo.onnx. The formula is bench/golden/formula.py's; ../common/mod.rs says how weights are scaled.
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
    print(name, '[' + ', '.join(str(np.float32(v)) for v in values) + ']')


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


def structure_numbers():
    from transformers import ViTForImageClassification
    models = pathlib.Path(__file__).parents[4] / 'models/emoji-judges'
    a, b = (torch.cat([tensor(picture(k, 32, 32)) for k in ks]) for ks in ((0, 2), (1, 5)))

    def load(name):
        import json
        model = ViTForImageClassification.from_pretrained(models / name).eval()
        config = json.loads((models / name / 'preprocessor_config.json').read_text())
        mean, std = (torch.tensor(config[key])[:, None, None] for key in ('image_mean', 'image_std'))
        return model, lambda x: (x / 255 - mean) / std

    model, prepare = load('object')
    seen = []
    keys = [m for n, m in model.named_modules() if n.endswith(('attention.key', 'k_proj'))][-1]
    keys.register_forward_hook(lambda module, inputs, output: seen.append(output))

    def similarity(x):
        model(prepare(x))
        k = seen.pop()
        norm = k.norm(dim=2, keepdim=True)
        return k @ k.transpose(1, 2) / (norm @ norm.transpose(1, 2)).clamp(min=1e-8)

    show('structure', ((similarity(a) - similarity(b)) ** 2).mean((1, 2)))
    model, prepare = load('style')
    cls = lambda x: model.vit(prepare(x)).last_hidden_state[:, 0]
    show('style', torch.nn.functional.cosine_similarity(cls(a), cls(b)))


def onnx_numbers():
    """Two tiny networks: the means of red, green and blue times a matrix; and three boxes, wherever the picture is bright."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
    here = pathlib.Path(__file__).parent

    def save(name, nodes, initializers, output):
        graph = helper.make_graph(nodes, name, [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 3, 8, 8])],
                                  [helper.make_tensor_value_info('y', TensorProto.FLOAT, output)],
                                  [numpy_helper.from_array(v.astype(np.float32), k) for k, v in initializers.items()])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, here / f'{name}.onnx')

    save('classifier', [helper.make_node('ReduceMean', ['x'], ['m'], axes=[2, 3], keepdims=0),
                        helper.make_node('Gemm', ['m', 'w', 'b'], ['y'])],
         {'w': np.array([[4, 0, -1, .5], [0, 4, -1, .5], [0, -1, 4, .5]]), 'b': np.array([0, 0, 0, 1])}, [1, 4])
    boxes = np.zeros((1, 6, 3))
    boxes[0, :4] = np.array([[2, 2, 2, 3], [2.5, 2, 2, 3], [6, 5, 4, 6]]).T
    boxes[0, 4:] = np.array([[.9, .1], [.7, .2], [.1, .6]]).T
    save('yolo', [helper.make_node('ReduceMax', ['x'], ['m'], keepdims=0), helper.make_node('Mul', ['b', 'm'], ['y'])], {'b': boxes}, [1, 6, 3])
    session = onnxruntime.InferenceSession(here / 'classifier.onnx')
    for k in 0, 1:
        x = (tensor(picture(k, 8, 8)) / 255 - .5) / .25
        show('classifier', torch.from_numpy(session.run(None, {'x': x.numpy()})[0]).softmax(1)[0])


def nudenet_numbers():
    """Artwork of the tree on white, four times as large, as numpy and Rust put it there alike."""
    from PIL import Image
    from nudenet import NudeDetector
    detector = NudeDetector()
    art = pathlib.Path(__file__).parents[4] / 'assets/emoji-world'
    for style, name, scale, cut in (('fluent', 'santa', 1, None), ('noto', 'apple', 1, None), ('noto', 'apple', 4, None),
                                    ('fluent', 'santa', 1, (128, 102)), ('noto', 'butterfly', 1, (76, 128)),
                                    ('blob', 'dog', 4, (512, 307)), ('emojione', 'owl', 4, (512, 307)),
                                    ('fluent', 'skull', 4, (409, 512)), ('fluent', 'airplane', 1, (102, 128)), ('noto', 'cat', 4, None)):
        rgba = np.asarray(Image.open(art / style / f'{name}.png').convert('RGBA')).astype(int)
        rgb = ((rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255).astype(np.uint8)
        rgb = rgb.repeat(scale, 0).repeat(scale, 1)
        if cut:
            rgb = rgb[:cut[1], :cut[0]]
        found = detector.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
        cut = f'Some({cut})' if cut else 'None'
        seen = ', '.join(f'("{d["class"]}", {d["score"]:.6f}, {d["box"]})' for d in found)
        print(f'("{style}/{name}", {scale}, {cut}, &[{seen}]),')


if __name__ == '__main__':
    for name in sys.argv[1:] or ['lpips', 'resnet', 'inception', 'structure', 'onnx', 'nudenet']:
        globals()[name + '_numbers']()
