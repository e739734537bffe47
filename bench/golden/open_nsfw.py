#!/usr/bin/env python3
"""What open-nsfw says of pieces of artwork, by onnxruntime: the literals of crates/eval/tests/open_nsfw.rs, and how far the two
steps of its package that scumble leaves out would move them.

    python bench/golden/open_nsfw.py open-nsfw.onnx

Needs numpy, pillow and onnxruntime; docs/detectors.md says where the file comes from.
"""
import hashlib
import io
import os
import sys

import numpy as np
import onnxruntime
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CASES = [('fluent/santa', 4, None), ('noto/apple', 2, None), ('blob/dog', 4, (512, 307)), ('fluent/skull', 4, (409, 512)), ('ink/church', 4, None)]


def art(name, scale, size):
    """A piece of artwork on white, `scale` times as large, cut to `size` from its upper left corner; as crates/eval/tests/common has it."""
    icon = np.asarray(Image.open(os.path.join(ROOT, 'assets', 'emoji-world', name + '.png')).convert('RGBA')).astype(np.uint32)
    rgb = (icon[..., :3] * icon[..., 3:] + 255 * (255 - icon[..., 3:]) + 127) // 255
    rgb = rgb.astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
    width, height = size or rgb.shape[1::-1]
    return Image.fromarray(rgb[:height, :width])


def middle(picture, squeeze):
    w, h = picture.size
    if squeeze:
        picture = picture.resize((256, 256), Image.BILINEAR)
    else:
        picture = picture.resize((256, 256 * h // w) if w <= h else (256 * w // h, 256), Image.BILINEAR)
    w, h = picture.size
    left, top = round((w - 224) / 2), round((h - 224) / 2)
    return picture.crop((left, top, left + 224, top + 224))


def score(session, picture, squeeze, jpeg):
    picture = middle(picture, squeeze)
    if jpeg:
        kept = io.BytesIO()
        picture.save(kept, format='JPEG')
        picture = Image.open(io.BytesIO(kept.getvalue()))
    x = np.asarray(picture).astype(np.float32)[..., ::-1] - np.array([104, 117, 123], dtype=np.float32)
    return float(session.run(None, {session.get_inputs()[0].name: x[None]})[0][0][1])


def main():
    path = sys.argv[1]
    print('sha256', hashlib.sha256(open(path, 'rb').read()).hexdigest())
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    moved = 0
    for name, scale, size in CASES:
        picture = art(name, scale, size)
        plain, published = score(session, picture, False, False), score(session, picture, True, True)
        moved = max(moved, abs(plain - published))
        cut = f'Some({size})' if size else 'None'
        print(f'        ("{name}", {scale}, {cut}, {plain:.6f}),    // published steps: {published:.6f}')
    print(f'the steps left out move a score by at most {moved:.4f}')


if __name__ == '__main__':
    main()
