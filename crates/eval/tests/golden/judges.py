"""Scores of the judges by transformers 5.23, torch 2.15 CPU, Pillow: `python judges.py`, from this folder, writes judges.safetensors.

pictures: two of 32 x 32; large: one of 48 x 40, which the judges' preprocessing makes smaller. Bytes as floats, rows of RGB.
"""
import os

import numpy, torch
from PIL import Image
from safetensors.numpy import save_file
from transformers import ViTForImageClassification, ViTImageProcessorPil

ROOT = '../../../..'


def draw(style, name, size, ground, inner):
    icon = Image.open(f'{ROOT}/assets/emoji-world/{style}/{name}.png').convert('RGBA').resize((inner, inner), Image.LANCZOS)
    picture = Image.new('RGB', size, ground)
    picture.paste(icon, ((size[0] - inner) // 2, (size[1] - inner) // 2), icon)
    return picture


small = [draw('ink', 'church', (32, 32), (255, 255, 255), 28), draw('blob', 'owl', (32, 32), (178, 212, 255), 26)]
large = draw('fluent', 'pizza', (48, 40), (255, 236, 170), 36)
out = {'pictures': numpy.stack([numpy.asarray(p, numpy.float32) for p in small]), 'large': numpy.asarray(large, numpy.float32)}
for judge in ['object', 'style']:
    folder = f'{ROOT}/models/emoji-judges/{judge}'
    model, processor = ViTForImageClassification.from_pretrained(folder).eval(), ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        for name, pictures in [('', small), ('large_', [large])]:
            scores = model(processor(pictures, return_tensors='pt').pixel_values.float()).logits
            print(judge, name, [model.config.id2label[int(i)] for i in scores.argmax(-1)])
            out[f'{name}{judge}'] = scores.numpy()
save_file(out, 'judges.safetensors')
