"""An edit file: what it says of itself, and its changes. docs/formats.md has the format."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ._error import Error

EDIT = "edit.safetensors"
RECORD = "run.json"
METADATA = "scumble.edit"
FORMAT = 1
ADDED = "added."
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Value:
    """A tensor gets these numbers."""

    numbers: torch.Tensor

    def misfit(self, shape: torch.Size) -> str | None:
        """Why it is no change of a tensor of this shape; None if it is one."""
        return None if self.numbers.shape == shape else _differ(list(self.numbers.shape), shape)

    def over(self, base: torch.Tensor) -> torch.Tensor:
        """The new numbers, float32, of a tensor whose old ones are `base`, of any float dtype and a shape that fits."""
        return self.numbers.float()


@dataclass(frozen=True)
class LowRank:
    """`alpha / rank * up down` is added. `down` is [rank, in] and `up` [out, rank]; of a convolution [rank, in, kh,
    kw] and [out, rank, 1, 1]."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    def misfit(self, shape: torch.Size) -> str | None:
        """As `Value.misfit`."""
        up, down = list(self.up.shape), list(self.down.shape)
        if min(len(up), len(down)) < 2 or down[0] == 0 or up[1:] != [down[0]] + [1] * (len(up) - 2):
            return f"has factors that do not fit: {up} and {down}"
        product = [up[0], *down[1:]]
        # A 1x1 convolution is as good as the matrix that it is.
        fits = product[:1] == list(shape[:1]) and math.prod(product) == shape.numel()
        return None if fits else _differ(product, shape)

    def over(self, base: torch.Tensor) -> torch.Tensor:
        """As `Value.over`."""
        rank = self.down.shape[0]
        product = self.up.double().reshape(-1, rank) @ self.down.double().reshape(rank, -1)
        return base.float() + (self.alpha / rank * product).float().reshape(base.shape)


@dataclass(frozen=True)
class Edit:
    """An edit file that was read.

    `changes` are named by component and tensor: ("unet",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight").
    """

    path: Path
    method: str
    concepts: list[str]
    base: str
    family: str
    # Whether its adapters look at the prompt.
    gated: bool
    # The guard that it is, by its name.
    guard: str | None
    # Tensors of layers that plain models do not have.
    added: list[str]
    changes: dict[tuple[str, str], Value | LowRank]


def file_of(path: Path) -> Path:
    """The file that a path stands for: the edit in a run's folder, the path itself otherwise.

    Raises `Error` if there is none.
    """
    if not path.exists():
        raise Error(
            f"{path}: there is no such file or folder", f"give the output folder of `scumble erase` or the {EDIT} in it"
        )
    if not path.is_dir():
        return path
    if (path / EDIT).is_file():
        return path / EDIT
    if (path / "model_index.json").exists() or (path / "config.json").exists():
        raise Error(f"{path}: is a model, not an edit", "diffusers opens it with from_pretrained")
    if (path / RECORD).is_file():
        raise Error(f"{path}: holds a run, but no {EDIT}; if it is an erasure, it is not finished")
    raise Error(f"{path}: is a folder without {EDIT}", "give the output folder of `scumble erase`")


def read(path: Path) -> Edit:
    """Reads an edit file, whole.

    Raises `Error` if it is none, is damaged or of a later version, or holds numbers that are not finite.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as problem:
        raise Error(f"{path}: is no whole safetensors file: {problem}") from problem
    about = _about(path, metadata)
    for key, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise Error(f"{path}: {key} is {_name(tensor.dtype)}, expected float16, bfloat16 or float32")
        found = not_finite(tensor)
        if found is not None:
            raise Error(f"{path}: {key}: {found}", "make the edit again")
    guard = about.get("guard")
    return Edit(
        path=path,
        method=_text(about, "method"),
        concepts=[str(concept) for concept in about.get("concepts") or []],
        base=_text(about, "base"),
        family=_text(about, "family"),
        gated=about.get("gate") is not None,
        guard=None if guard is None else str(guard.get("id") if isinstance(guard, dict) else guard),
        added=sorted(key[len(ADDED) :] for key in tensors if key.startswith(ADDED)),
        changes=_changes(path, {key: tensor for key, tensor in tensors.items() if not key.startswith(ADDED)}),
    )


def not_finite(tensor: torch.Tensor) -> str | None:
    """How many numbers of a tensor are not finite, and where the first one stands; None if all are."""
    finite = tensor.isfinite()
    if bool(finite.all()):
        return None
    count = int(finite.numel() - finite.sum())
    where = (~finite).nonzero()[0].tolist()
    return f"{count} of {finite.numel()} numbers are not finite, the first ({tensor[tuple(where)].item()}) at {where}"


def _about(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if METADATA not in metadata:
        raise Error(
            f"{path}: is not an edit of scumble",
            "`scumble inspect` says what it is; diffusers loads a LoRA by pipe.load_lora_weights(path), and a partial "
            "U-Net by pipe.unet.load_state_dict(safetensors.torch.load_file(path), strict=False)",
        )
    try:
        about = json.loads(metadata[METADATA])
    except ValueError as problem:
        raise Error(f"{path}: its `{METADATA}` metadata is not what it should be: {problem}") from problem
    if not isinstance(about, dict):
        raise Error(f"{path}: its `{METADATA}` metadata is not what it should be: expected an object")
    if about.get("format") != FORMAT:
        raise Error(
            f"{path}: is an edit of format {about.get('format')}, this version reads format {FORMAT}",
            "pip install --upgrade scumble",
        )
    return about


def _text(about: dict[str, Any], key: str) -> str:
    return str(about.get(key) or "")


def _changes(path: Path, tensors: dict[str, torch.Tensor]) -> dict[tuple[str, str], Value | LowRank]:
    changes: dict[tuple[str, str], Value | LowRank] = {}
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        end = next((end for end in (DOWN, UP, ALPHA) if key.endswith(end)), None)
        if end is None:
            changes[_split(path, key)] = Value(tensor)
        else:
            factors.setdefault(key[: -len(end)], {})[end] = tensor
    for module, parts in factors.items():
        name = _split(path, f"{module}.weight")
        if DOWN not in parts or UP not in parts:
            raise Error(f"{path}: {module} has one factor of a low-rank change")
        if name in changes:
            raise Error(f"{path}: {module}.weight is changed twice")
        if ALPHA in parts and parts[ALPHA].numel() != 1:
            raise Error(f"{path}: {module}{ALPHA} holds {parts[ALPHA].numel()} numbers, expected one")
        down = parts[DOWN]
        alpha = float(parts[ALPHA]) if ALPHA in parts else float(down.shape[0] if down.dim() else 1)
        changes[name] = LowRank(down, parts[UP], alpha)
    return changes


def _split(path: Path, key: str) -> tuple[str, str]:
    """Component and name of a tensor."""
    component, dot, name = key.partition(".")
    if not dot:
        raise Error(f"{path}: tensor {key} names no component")
    return component, name


def _differ(found: list[int], shape: torch.Size) -> str:
    return f"has shape {found} in the edit and {list(shape)} in the pipeline"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")
