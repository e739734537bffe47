"""Loads every export of the miniature with diffusers and compares weights and pictures with the original.

    SCUMBLE_EXPORTS=/tmp/exports cargo test -p scumble-nn --test adapters -- --ignored
    OMP_NUM_THREADS=1 python crates/nn/tests/golden/check_exports.py /tmp/exports

diffusers 0.42, transformers 5.23, peft, torch 2.15. Every warning of diffusers is an error here.
"""

import logging
import pathlib
import sys
import warnings

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

exports = pathlib.Path(sys.argv[1])
model = pathlib.Path(__file__).resolve().parents[4] / "models" / "emoji-sd"
heard = []


class Ear(logging.Handler):
    def emit(self, record):
        heard.append(f"{record.name}: {record.getMessage()}")


for name in ("diffusers", "transformers", "peft"):
    logging.getLogger(name).addHandler(Ear(level=logging.WARNING))


def load(path, **more):
    return StableDiffusionPipeline.from_pretrained(path, dtype=torch.float32, **more)


def weights(pipe):
    for part in ("text_encoder", "unet", "vae"):
        for name, tensor in getattr(pipe, part).state_dict().items():
            if not name.endswith("position_ids"):
                yield part, name, tensor


def same(a, b, tolerance=0.0):
    for (part, name, x), (_, other, y) in zip(weights(a), weights(b), strict=True):
        assert name == other and (x - y).abs().max() <= tolerance, (part, name, (x - y).abs().max())


def picture(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe("a church in noto style", num_inference_steps=5, generator=torch.Generator().manual_seed(1),
                output_type="np").images


def quiet(what):
    assert not heard, (what, heard)
    print("ok", what)


base = load(model)
heard.clear()
reference = picture(base)
heard.clear()

again = load(exports / "folder")
same(base, again)
assert (picture(again) == reference).all()
quiet("folder")

half = load(exports / "half")
same(base, half, 2e-2)
quiet("folder in f16")

single = StableDiffusionPipeline.from_single_file(exports / "single.safetensors", config=str(exports / "folder"),
                                                  local_files_only=True)
same(base, single)
assert (picture(single) == reference).all()
quiet("single file")

ids = CLIPTokenizer.from_pretrained(exports / "clip" / "tokenizer")("a photo of a cat", padding="max_length", max_length=9)
assert ids.input_ids == [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0], ids.input_ids
quiet("CLIP's own vocabulary")

merged = load_file(exports / "merged.safetensors")
for kind in ("kohya", "peft"):
    pipe = load(model)
    heard.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.load_lora_weights(exports, weight_name=f"{kind}.safetensors")
    quiet(f"{kind}: loaded")
    pipe.fuse_lora(components=["unet", "text_encoder"])
    pipe.unload_lora_weights()
    seen = 0
    for part, name, tensor in weights(pipe):
        key = f"{part}.{name}" if f"{part}.{name}" in merged else f"{part}.text_model.{name}"
        if key in merged:
            seen += 1
            assert (tensor - merged[key]).abs().max() < 1e-5, (kind, key, (tensor - merged[key]).abs().max())
    assert seen == len(merged), (seen, len(merged))
    quiet(f"{kind}: {seen} modules as merged here")

for kind, token in (("embedding", "<cat2>"), ("embedding-a1111", "<cat3>")):
    pipe = load(model)
    heard.clear()
    if kind == "embedding":
        pipe.load_textual_inversion(str(exports / f"{kind}.safetensors"))
    else:
        state = load_file(exports / f"{kind}.safetensors")
        assert list(state) == ["emb_params"]
        pipe.load_textual_inversion({token: state["emb_params"]})
    ids = pipe.tokenizer.convert_tokens_to_ids([token, f"{token}_1"])
    table = pipe.text_encoder.get_input_embeddings().weight
    assert (table[ids[0]] == 0.5).all() and (table[ids[1]] == 0.25).all()
    print("ok", kind, [h for h in heard])
