"""Writes ldm_names.txt.gz: for SD 1.4 and SD 2.1, which LDM key diffusers itself reads into each of its tensors.

Every key that the LDM layout could hold is offered to diffusers' converter with a number of its own; the number that
arrives under a diffusers name tells the pair. Lines: model, component, diffusers name, LDM name without its prefix, shape
(diffusers').

    OMP_NUM_THREADS=1 python ldm_names.py        # diffusers 0.42, transformers 5.23, torch 2.15
"""

import gzip
import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as sf
from transformers import CLIPTextConfig, CLIPTextModel

UNET = dict(
    block_out_channels=[320, 640, 1280, 1280], layers_per_block=2, sample_size=64,
    down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
)
SD1 = dict(UNET, attention_head_dim=8, cross_attention_dim=768)
SD2 = dict(UNET, attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True)
VAE = dict(
    block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
    down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
)


def both(modules):
    return [f"{m}.{kind}" for m in modules for kind in ("weight", "bias")]


def unet_keys():
    resnet = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection"]
    block = [f"transformer_blocks.0.{m}" for m in (
        [f"norm{i}" for i in (1, 2, 3)] + ["ff.net.0.proj", "ff.net.2"]
        + [f"attn{a}.{m}" for a in (1, 2) for m in ("to_q", "to_k", "to_v", "to_out.0")])]
    attention = ["norm", "proj_in", "proj_out"] + block
    modules = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"]
    for i in range(1, 12):
        if i % 3 == 0:
            modules.append(f"input_blocks.{i}.0.op")
        else:
            modules += [f"input_blocks.{i}.0.{m}" for m in resnet]
            modules += [f"input_blocks.{i}.1.{m}" for m in attention]
    for i in (0, 2):
        modules += [f"middle_block.{i}.{m}" for m in resnet]
    modules += [f"middle_block.1.{m}" for m in attention]
    for i in range(12):
        modules += [f"output_blocks.{i}.0.{m}" for m in resnet]
        if i > 2:
            modules += [f"output_blocks.{i}.1.{m}" for m in attention]
    # The upsampler stands behind the attention, or in its place where a level has none.
    modules += ["output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv"]
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


def pairs(model, component, network, keys, prefix, convert):
    offered = {prefix + key: torch.full((1, 1, 1, 1), float(i)) for i, key in enumerate(keys)}
    converted = convert(offered)
    for name, tensor in sorted(network.state_dict().items()):
        yield "\t".join([model, component, name, keys[int(converted[name].flatten()[0])], json.dumps(list(tensor.shape))])


lines = []
with torch.device("meta"):
    unets = [(model, UNet2DConditionModel.from_config(config)) for model, config in (("sd1", SD1), ("sd2", SD2))]
    vae = AutoencoderKL.from_config(VAE)
    text = CLIPTextModel(CLIPTextConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=23,
                                        num_attention_heads=16, hidden_act="gelu", vocab_size=49408))
for model, unet in unets:
    lines += pairs(model, "unet", unet, unet_keys(), "model.diffusion_model.",
                   lambda sd, u=unet: sf.convert_ldm_unet_checkpoint(sd, u.config))
lines += pairs("sd1", "vae", vae, vae_keys(), "first_stage_model.", lambda sd: sf.convert_ldm_vae_checkpoint(sd, vae.config))

# OpenCLIP: the fused projection is three times as tall, so its thirds carry three numbers.
width, blocks = 1024, 24
keys = ["token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias"]
for i in range(blocks):
    here = f"transformer.resblocks.{i}"
    keys += both([f"{here}.{m}" for m in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj", "attn.out_proj")])
    keys += [f"{here}.attn.in_proj_weight", f"{here}.attn.in_proj_bias"]
prefix = "cond_stage_model.model."
offered = {}
for i, key in enumerate(keys):
    if "in_proj" in key:
        thirds = torch.cat([torch.full((width,), i + part / 4) for part in range(3)])
        offered[prefix + key] = thirds[:, None] if key.endswith("weight") else thirds
    else:
        offered[prefix + key] = torch.full((1,), float(i))
converted = sf.convert_open_clip_checkpoint(text, offered)
for name, tensor in sorted(text.state_dict().items()):
    if name.endswith("position_ids"):
        continue
    full = name if name.startswith("text_model.") else f"text_model.{name}"
    value = float(converted[full].flatten()[0])
    part = f"[{int(4 * (value % 1))}]" if "in_proj" in keys[int(value)] else ""
    lines.append("\t".join(["sd2", "text_encoder", full, keys[int(value)] + part, json.dumps(list(tensor.shape))]))

data = gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0)
pathlib.Path(__file__).with_name("ldm_names.txt.gz").write_bytes(data)
print(len(lines), "lines", len(data), "bytes")
