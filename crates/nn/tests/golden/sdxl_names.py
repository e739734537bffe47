"""Writes sdxl_names.txt.gz: which tensor of a single SDXL file diffusers itself reads into each of its tensors.

As in ldm_names.py, every key that the layout could hold is offered to diffusers' converters with a number of its own; the number
that arrives under a diffusers name tells the pair. Lines: component, diffusers name, single-file name, shape (diffusers'). A
single-file name ends in `[0]`, `[1]`, `[2]` for a third of a fused projection, and in `^T` where the tensor is transposed.

    OMP_NUM_THREADS=1 python sdxl_names.py        # diffusers 0.42, transformers 5.23, torch 2.15
"""

import gzip
import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as sf
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

# stabilityai/stable-diffusion-xl-base-1.0
UNET = dict(
    block_out_channels=[320, 640, 1280], layers_per_block=2, sample_size=128, cross_attention_dim=2048,
    down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=[5, 10, 20],
    transformer_layers_per_block=[1, 2, 10], use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)
VAE = dict(
    block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)
TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408)
TEXT_2 = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, vocab_size=49408,
              hidden_act="gelu", projection_dim=1280)


def both(modules):
    return [f"{m}.{kind}" for m in modules for kind in ("weight", "bias")]


def unet_keys():
    """Everything that could be there: a transformer in every block, of up to ten blocks."""
    resnet = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection"]
    block = [f"norm{i}" for i in (1, 2, 3)] + ["ff.net.0.proj", "ff.net.2"]
    block += [f"attn{a}.{m}" for a in (1, 2) for m in ("to_q", "to_k", "to_v", "to_out.0")]

    def attention(deep):
        return ["norm", "proj_in", "proj_out"] + [f"transformer_blocks.{i}.{m}" for i in range(deep) for m in block]

    depth = {0: 0, 1: 2, 2: 10}
    modules = ["time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2", "input_blocks.0.0", "out.0", "out.2"]
    for i in range(1, 9):
        if i % 3 == 0:
            modules.append(f"input_blocks.{i}.0.op")
        else:
            modules += [f"input_blocks.{i}.0.{m}" for m in resnet]
            if depth[i // 3]:
                modules += [f"input_blocks.{i}.1.{m}" for m in attention(depth[i // 3])]
    for i in (0, 2):
        modules += [f"middle_block.{i}.{m}" for m in resnet]
    modules += [f"middle_block.1.{m}" for m in attention(10)]
    for i in range(9):
        modules += [f"output_blocks.{i}.0.{m}" for m in resnet]
        if depth[2 - i // 3]:
            modules += [f"output_blocks.{i}.1.{m}" for m in attention(depth[2 - i // 3])]
    modules += ["output_blocks.2.2.conv", "output_blocks.5.2.conv"]
    return both(modules)


def vae_keys():
    resnet = ["norm1", "conv1", "norm2", "conv2", "nin_shortcut"]
    modules = ["quant_conv", "post_quant_conv"]
    for half, side, count in (("encoder", "down", 2), ("decoder", "up", 3)):
        modules += [f"{half}.{m}" for m in ("conv_in", "norm_out", "conv_out")]
        modules += [f"{half}.mid.block_{i}.{m}" for i in (1, 2) for m in resnet]
        modules += [f"{half}.mid.attn_1.{m}" for m in ("norm", "q", "k", "v", "proj_out")]
        modules += [f"{half}.{side}.{i}.block.{j}.{m}" for i in range(4) for j in range(count) for m in resnet]
        modules += [f"{half}.{side}.{i}.{side}sample.conv" for i in range(4)]
    return both(modules)


def pairs(component, network, keys, prefix, convert):
    offered = {prefix + key: torch.full((1, 1, 1, 1), float(i)) for i, key in enumerate(keys)}
    converted = convert(offered)
    for name, tensor in sorted(network.state_dict().items()):
        key = prefix + keys[int(converted[name].flatten()[0])]
        yield "\t".join([component, name, key, json.dumps(list(tensor.shape))])


def full_name(name):
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


lines = []
with torch.device("meta"):
    unet = UNet2DConditionModel.from_config(UNET)
    vae = AutoencoderKL.from_config(VAE)
    text = CLIPTextModel(CLIPTextConfig(**TEXT))
    text_2 = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_2))
for name, network in (("unet", unet), ("vae", vae), ("text_encoder", text), ("text_encoder_2", text_2)):
    print(name, len(list(network.parameters())), "tensors", sum(p.numel() for p in network.parameters()), "numbers")
lines += pairs("unet", unet, unet_keys(), "model.diffusion_model.", lambda sd: sf.convert_ldm_unet_checkpoint(sd, unet.config))
lines += pairs("vae", vae, vae_keys(), "first_stage_model.", lambda sd: sf.convert_ldm_vae_checkpoint(sd, vae.config))

# CLIP's names only lose their prefix.
prefix = "conditioner.embedders.0.transformer."
keys = sorted(full_name(name) for name, _ in text.named_parameters())
offered = {prefix + key: torch.full((1,), float(i)) for i, key in enumerate(keys)}
converted = sf.convert_ldm_clip_checkpoint(offered)
for name, tensor in sorted(text.named_parameters(), key=lambda p: full_name(p[0])):
    key = keys[int(converted[full_name(name)][0])]
    lines.append("\t".join(["text_encoder", full_name(name), prefix + key, json.dumps(list(tensor.shape))]))

# OpenCLIP: the fused projection is three times as tall, so its thirds carry three numbers.
prefix = "conditioner.embedders.1.model."
width, blocks = 1280, 32
keys = ["token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection"]
for i in range(blocks):
    here = f"transformer.resblocks.{i}"
    keys += both([f"{here}.{m}" for m in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj", "attn.out_proj")])
    keys += [f"{here}.attn.in_proj_weight", f"{here}.attn.in_proj_bias"]
offered = {}
for i, key in enumerate(keys):
    if "in_proj" in key:
        thirds = torch.cat([torch.full((width,), i + part / 4) for part in range(3)])
        offered[prefix + key] = thirds[:, None] if key.endswith("weight") else thirds
    elif key == "text_projection":
        # Its first number tells it; whether it is transposed, the second.
        offered[prefix + key] = torch.full((width, width), float(i))
        offered[prefix + key][0, 1] = -1.0
    else:
        offered[prefix + key] = torch.full((1,), float(i))
converted = sf.convert_open_clip_checkpoint(text_2, offered, prefix=prefix)
for name, tensor in sorted(text_2.named_parameters(), key=lambda p: full_name(p[0])):
    found = converted[full_name(name)]
    value = float(found.flatten()[0])
    key = keys[int(value)]
    part = f"[{int(4 * (value % 1))}]" if "in_proj" in key else ""
    if key == "text_projection":
        assert found[1, 0] == -1.0 and found[0, 1] == value
        part = "^T"
    lines.append("\t".join(["text_encoder_2", full_name(name), prefix + key + part, json.dumps(list(tensor.shape))]))

data = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
pathlib.Path(__file__).with_name("sdxl_names.txt.gz").write_bytes(data)
print(len(lines), "lines", len(data), "bytes")
