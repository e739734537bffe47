"""Edits for diffusers: what is done to the networks."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ._error import Error
from ._file import Edit, LowRank, Value, file_of, not_finite, read

COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# How many names a message lists.
LISTED = 4

logger = logging.getLogger("scumble")

# What the tensors of a network were before the first edit, by their names in edits, in the processor's memory.
_originals: WeakKeyDictionary[torch.nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Place:
    """A tensor of the pipeline, and what happens to it."""

    component: str
    name: str
    network: torch.nn.Module
    tensor: torch.nn.Parameter
    change: Value | LowRank

    @property
    def original(self) -> torch.Tensor | None:
        """What it was before the edits that are loaded, if one of them changed it."""
        return _originals.get(self.network, {}).get(self.name)


def load(pipe: Any, path: str | os.PathLike[str], strength: float) -> Any:
    """`scumble.load_edit`."""
    if not math.isfinite(strength):
        raise Error(f"the strength is {strength}, expected a finite number")
    edit = read(file_of(Path(path)))
    _expect_weights(edit)
    _expect_family(pipe, edit)
    places = _places(pipe, edit)
    # What the tensors were just before, to put it back if anything goes wrong on the way.
    before: list[tuple[Place, torch.Tensor]] = []
    still = 0
    try:
        for place in places:
            before.append((place, place.tensor.detach().to("cpu", copy=True)))
            new = _new(edit, place, before[-1][1], strength)
            still += torch.equal(new, before[-1][1])
            _write(place.tensor, new)
    except BaseException:
        for place, numbers in before:
            _write(place.tensor, numbers)
        raise
    for place, numbers in before:
        _originals.setdefault(place.network, {}).setdefault(place.name, numbers)
    about = f"{edit.method}: {'; '.join(edit.concepts)}"
    counted = f"{len(places)} of {len(edit.changes)} tensors applied at strength {strength}"
    logger.info("%s: %s (%s)", edit.path, counted, about)
    if still == len(places) and strength != 0:
        logger.warning("%s: every number is as it was; the pipeline's dtype cannot say so small a change", edit.path)
    return pipe


def unload(pipe: Any) -> Any:
    """`scumble.unload_edit`."""
    found: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    networks: list[torch.nn.Module] = []
    for component, network in _networks(pipe):
        tensors = _tensors(network)
        for name, original in _originals.get(network, {}).items():
            tensor = _find(tensors, name)
            if tensor is None or tensor.shape != original.shape:
                now = "gone" if tensor is None else f"of shape {list(tensor.shape)}, and was {list(original.shape)}"
                raise Error(f"the edit cannot be taken away: {component} {name} is {now}", "load the pipeline again")
            _expect_there(f"{component} {name}", tensor)
            found.append((tensor, original))
        networks.append(network)
    for tensor, original in found:
        _write(tensor, original)
    for network in networks:
        _originals.pop(network, None)
    return pipe


def _expect_weights(edit: Edit) -> None:
    """Refuses what no weights can hold."""
    where = edit.path
    if edit.guard is not None:
        raise Error(
            f"{where}: is the run-time guard `{edit.guard}`, which no weights can hold",
            f"`scumble generate --edit {where}` draws with it; a method (`scumble methods`) makes what can be loaded",
        )
    if edit.added:
        raise Error(
            f"{where}: {edit.method} adds layers that diffusers does not have: {_listed(edit.added)}",
            f"`scumble generate --edit {where}` draws with it; it cannot be exported either",
        )
    if edit.gated:
        raise Error(
            f"{where}: its adapters ({edit.method}) act as far as a prompt is close to the concept; weights act always",
            f"`scumble generate --edit {where}` draws with it; `scumble export {where} --to lora` writes what acts on "
            "every prompt, for pipe.load_lora_weights",
        )
    if not edit.changes:
        raise Error(f"{where}: changes no tensor, so there is nothing to apply")


def _expect_family(pipe: Any, edit: Edit) -> None:
    """Refuses an edit of another family than the pipeline's. Two text encoders are SDXL, as everywhere in scumble."""
    if not any(component == "unet" for component, _ in _networks(pipe)):
        raise Error(
            f"{type(pipe).__name__} has no network `unet`: it is no pipeline of Stable Diffusion or SDXL",
            "edits are for StableDiffusionPipeline and StableDiffusionXLPipeline",
        )
    if edit.family and not edit.family.startswith("stable-diffusion"):
        raise Error(
            f"{edit.path}: is for models of the family {edit.family}, which this version does not know",
            "pip install --upgrade scumble",
        )
    theirs, ours = edit.family.startswith("stable-diffusion-xl"), hasattr(pipe, "text_encoder_2")
    if edit.family and theirs != ours:
        mine = f"{type(pipe).__name__} is {'SDXL' if ours else 'SD 1.x or 2.x'}"
        raise Error(
            f"{edit.path}: was made on {edit.base} ({edit.family}), and {mine}: an edit stays within its family",
            "erase the concept from this pipeline's model: `scumble erase --model`",
        )


def _places(pipe: Any, edit: Edit) -> list[Place]:
    """Where each change of an edit belongs. Raises `Error` if one has no place or does not fit."""
    networks = dict(_networks(pipe))
    tensors = {component: _tensors(network) for component, network in networks.items()}
    places: list[Place] = []
    problems: list[str] = []
    for (component, name), change in edit.changes.items():
        tensor = _find(tensors.get(component, {}), name)
        if tensor is None:
            problems.append(f"{component} {name} is not in the pipeline")
            continue
        _expect_there(f"{component} {name}", tensor)
        misfit = change.misfit(tensor.shape)
        if misfit is not None:
            problems.append(f"{component} {name} {misfit}")
            continue
        places.append(Place(component, name, networks[component], tensor, change))
    if problems:
        made = f"; it was made on {edit.base} ({edit.family})" if edit.base else ""
        count = f"{len(problems)} of {len(edit.changes)} tensors"
        raise Error(
            f"{edit.path}: does not fit this pipeline, {count}: {_listed(problems)}{made}",
            "load the pipeline of the model that the edit was made on",
        )
    return places


def _networks(pipe: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """The networks of a pipeline that edits can change, by component; a compiled one as what was compiled."""
    for component in COMPONENTS:
        network = getattr(pipe, component, None)
        network = getattr(network, "_orig_mod", network)
        if isinstance(network, torch.nn.Module):
            yield component, network


def _tensors(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return dict(network.named_parameters())


def _find(tensors: dict[str, torch.nn.Parameter], name: str) -> torch.nn.Parameter | None:
    """The tensor that an edit calls `name`.

    Two others may call it something else: transformers 5, which leaves `text_model.` out of some text encoders, and
    PEFT, under which the layer beside a LoRA is called `base_layer`.
    """
    for plain in (name, name.removeprefix("text_model.")):
        module, _, end = plain.rpartition(".")
        for spelling in (plain, f"{module}.base_layer.{end}"):
            if spelling in tensors:
                return tensors[spelling]
    return None


def _expect_there(what: str, tensor: torch.nn.Parameter) -> None:
    """Refuses a tensor whose numbers cannot be read and written."""
    if tensor.is_meta:
        raise Error(
            f"{what} is on the meta device: its numbers lie elsewhere, as with enable_sequential_cpu_offload()",
            "load and unload edits before the offload, or use enable_model_cpu_offload()",
        )
    if tensor.dtype not in DTYPES:
        raise Error(
            f"{what} is {tensor.dtype} in the pipeline, and edits are for numbers that are not quantized",
            "load the pipeline in float16",
        )


def _new(edit: Edit, place: Place, current: torch.Tensor, strength: float) -> torch.Tensor:
    """The new numbers of a tensor, in its dtype, in the processor's memory."""
    base = current if place.original is None else place.original.to(current.dtype)
    new = place.change.over(base)
    if strength == 0:
        return current
    if strength == 1 and place.original is None:
        blend = new
    else:
        blend = (current.double() + strength * (new.double() - base.double())).float()
    rounded = blend.to(current.dtype)
    problem = not_finite(rounded)
    if problem is not None:
        raise Error(
            f"{edit.path}: {place.component} {place.name} at strength {strength} in {current.dtype}: {problem}",
            "try a smaller strength",
        )
    return rounded


def _write(tensor: torch.nn.Parameter, numbers: torch.Tensor) -> None:
    """Into the tensor's own memory, so that whoever holds it (a compiled network, an offload's hook) sees it."""
    # Not no_grad: a pipeline that was loaded in inference mode can be written to in that mode only.
    with torch.inference_mode():
        tensor.copy_(numbers)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
