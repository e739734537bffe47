"""Edits for diffusers: what a user calls."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TypeVar

from ._error import Error

Pipe = TypeVar("Pipe")


def load_edit(pipe: Pipe, path: str | os.PathLike[str], strength: float = 1.0) -> Pipe:
    """Applies an edit file of scumble to a diffusers pipeline, in place, and returns the pipeline.

    `pipe` is a StableDiffusionPipeline or a StableDiffusionXLPipeline, or another pipeline of the same networks
    (`text_encoder`, `text_encoder_2`, `unet`, `vae`), in float16, bfloat16, float32 or float64, on any device.
    `path` is an `edit.safetensors`, or the folder of the run that made it. Every tensor that the edit names, of
    whatever shape, becomes `base + strength * (edited - base)`, as with `scumble generate --edit PATH:STRENGTH`: 0
    is the model as it was, 1 the edit; numbers between, above and below are allowed. That is computed on the
    processor, from the pipeline's numbers as float32, and rounded to their dtype. Several edits may be loaded one
    after the other: their differences to the original numbers are added.

    The original numbers are kept for `unload_edit`, in the processor's memory, as long as the network lives: as
    many bytes as the changed tensors have. Logger `scumble` says at level INFO how many tensors were applied, and
    warns of an edit that left every number as it was, because the dtype cannot say so small a change.

    Raises `Error`, and leaves every number as it was, if the file is missing, damaged or no edit; if the edit is of
    another family, or names a tensor that the pipeline has not, or has in another shape; if a number of it, or of
    what comes out, is not finite; if nothing would be applied; and if it holds what no weights can hold: adapters
    that look at the prompt (SPM), layers that plain models do not have (Receler), or a guard. An edit of another
    model of the same shapes fits: it is transferred.
    """
    return _torch_side().load(pipe, path, strength)  # type: ignore[no-any-return]


def unload_edit(pipe: Pipe) -> Pipe:
    """Takes away all edits that `load_edit` has applied to the pipeline's networks, and returns the pipeline.

    The tensors get the very numbers that they had before the first edit, to the bit; what else was written into
    these tensors since is lost too. If the pipeline was brought to another dtype meanwhile, it is those numbers in
    that dtype. Without an edit nothing happens.

    The original numbers belong to the networks, not to the pipeline: pipelines that share a network share its
    edits, and a copy of a network that was made while an edit was loaded cannot be unloaded.

    Raises `Error`, and changes nothing, if a tensor is no longer there or has another shape.
    """
    return _torch_side().unload(pipe)  # type: ignore[no-any-return]


def _torch_side() -> ModuleType:
    # Only here, so that the program can be run without torch.
    try:
        from . import _apply
    except ImportError as problem:
        raise Error(
            f"an edit for diffusers needs torch and safetensors: {problem}", "pip install 'scumble[diffusers]'"
        ) from problem
    return _apply
