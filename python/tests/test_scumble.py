"""The module against the real program and real diffusers, on the small models of the repository.

    SCUMBLE_BIN=target/release/scumble python -m pytest

needs diffusers, transformers (5 or later: the small SDXL is stored in its names), torch, safetensors, peft and Pillow,
and no network.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, DDIMScheduler, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

import scumble
from scumble import _apply

for quiet in (diffusers_logging, transformers_logging):
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "crates/nn/tests/golden/networks"
MODELS = {
    "emoji": ROOT / "models/emoji-sd",
    "sdxl": ROOT / "crates/diffusion/tests/golden/sdxl/model",
    "sd1": GOLDEN / "sd1/model",
    "sd2": GOLDEN / "sd2/model",
    "odd": GOLDEN / "odd/model",
}

# Every method, with few of everything.
ESD = {"iterations": 3, "trajectories": 2, "sampling_steps": 3}
PICTURES = {"iterations": 3, "sampling_steps": 3, "pictures": 2}
RETAIN = {**PICTURES, "retain_pictures": 2}
METHODS: dict[str, dict[str, int]] = {
    "esd": ESD,
    "uce": {},
    "rece": {},
    "realera": {"lora_iterations": 2, "trajectories": 2, "sampling_steps": 3},
    "trce": {**ESD, "keep_trajectories": 2},
    "mace": PICTURES,
    "speed": {},
    "oce": {},
    "few-shot": PICTURES,
    "advunlearn": {**ESD, "retain_trajectories": 2, "attack_steps": 1},
    "hirm": {"iterations": 3},
    "receler": {**ESD, "attack_steps": 1},
    "stereo": {**ESD, "pictures": 2, "rounds": 1, "round_iterations": 2, "attack_steps": 1},
    "salun": RETAIN,
    "erasediff": RETAIN,
    "scissorhands": {**RETAIN, "draws": 1, "draw_batch": 1},
    "sa": RETAIN,
    "spm": {**ESD, "anchor_trajectories": 2, "warm_up": 0},
    "leco": {"iterations": 3, "sampling_steps": 3},
    "ant": {**ESD, "salience_examples": 2},
    "ac": {**PICTURES, "reg_captions": 2},
    "all-but-one": ESD,
    "doco": {**PICTURES, "prior_captions": 2, "warm_up": 0},
    "fmn": {**PICTURES, "ti_iterations": 1},
}
# What they make, no weights can hold.
NOT_WEIGHTS = ("receler", "spm")
# Products of factors are summed in another order than in the program: relative to a tensor's largest number.
LOW_RANK = 1e-6
# So are the base and the result rounded, each by half a unit in the last place at most; float16 has a smallest number.
ROUNDED = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float64: 1e-6}
SMALLEST = 2.0**-24


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all runs, with a cache of its own."""
    folder = tmp_path_factory.mktemp("scumble")
    os.environ["SCUMBLE_CACHE"] = str(folder / "cache")
    return folder


@pytest.fixture(scope="session")
def erase(here: Path) -> Callable[..., Path]:
    """Makes an edit, once: its run's folder."""

    def erased(method: str, model: str = "emoji", *more: str) -> Path:
        folder = here / "-".join([model, method, *more]).replace("=", "-")
        if not folder.exists():
            words = ["erase", "church", "--method", method, "--no-judge", "--threads", "1", "--json", "-q"]
            for key, value in METHODS.get(method, {}).items():
                words += ["--set", f"{key}={value}"]
            for pair in more:
                words += ["--set", pair]
            if model != "emoji":
                words += ["--model", str(MODELS[model]), "--unknown", "allow", "--anchor", "cat"]
            if method in ("leco", "hirm", "advunlearn", "spm") and "--anchor" in words:
                del words[words.index("--anchor") :]
            done = scumble.run([*words, "--output-dir", folder])
            assert done.output["edit"] == str(folder / "edit.safetensors")
        return folder

    return erased


@pytest.fixture(scope="session")
def export(here: Path) -> Callable[..., Path]:
    """What the program writes of edits at strengths: a pipeline's folder."""

    def exported(*edits: str, model: str = "emoji", to: str = "diffusers") -> Path:
        name = f"{to}-" + hashlib.sha256(" ".join([model, *edits]).encode()).hexdigest()[:12]
        path = here / (name if to == "diffusers" else f"{name}.safetensors")
        if not path.exists():
            words: list[str] = []
            for edit in edits:
                words += ["--edit", edit]
            if model != "emoji":
                words += ["--model", str(MODELS[model])]
            scumble.run(["export", *words, "--to", to, "--output-dir", path, "-q"])
        return path

    return exported


def pipeline(model: str | Path = "emoji", dtype: torch.dtype = torch.float32) -> Any:
    folder = MODELS[model] if isinstance(model, str) else model
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """Every tensor of every network, as it is now."""
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": t.clone() for name, part in networks.items() for key, t in part.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether all bytes are the same."""
    raw = {key: (t.dtype, t.shape, t.contiguous().view(-1).view(torch.uint8)) for key, t in a.items()}
    assert raw.keys() == b.keys()
    return all(
        (t.dtype, t.shape) == raw[key][:2] and torch.equal(t.contiguous().view(-1).view(torch.uint8), raw[key][2])
        for key, t in b.items()
    )


def moved(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    """The names of the tensors that differ."""
    return {key for key, t in a.items() if not torch.equal(t, b[key])}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float, least: float = 0) -> None:
    """Every tensor, its largest difference relative to its largest number; with tolerance 0 to the bit."""
    assert ours.keys() == theirs.keys()
    for key, t in ours.items():
        apart = (t.double() - theirs[key].double()).abs().max().item()
        assert apart <= tolerance * theirs[key].double().abs().max().item() + least, f"{key}: {apart}"


def draw(pipe: Any, steps: int = 3) -> np.ndarray[Any, Any]:
    """A picture, [height, width, 3], from 0 to 1."""
    # What diffusers draws is a multiple of 8 wide; the model called odd is 12 wide by itself.
    side = -(-pipe.unet.config.sample_size * pipe.vae_scale_factor // 8) * 8
    drawn = pipe(
        "a church",
        num_inference_steps=steps,
        guidance_scale=4.0,
        height=side,
        width=side,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="np",
    )
    return np.asarray(drawn.images[0])


def is_low_rank(folder: Path) -> bool:
    with safe_open(str(folder / "edit.safetensors"), framework="pt") as file:
        return any(key.endswith(".lora_up.weight") for key in file.keys())  # noqa: SIM118


def count(folder: Path) -> int:
    """How many tensors of a model an edit changes."""
    with safe_open(str(folder / "edit.safetensors"), framework="pt") as file:
        return sum(not key.endswith((".lora_down.weight", ".alpha")) for key in file.keys())  # noqa: SIM118


def by_hand(
    path: Path, changes: dict[str, torch.Tensor], family: str = "stable-diffusion-custom", **about: Any
) -> Path:
    """An edit file of these tensors."""
    said = {
        "format": 1,
        "method": "by hand",
        "concepts": ["church"],
        "base": "emoji-sd",
        "base_hash": "",
        "family": family,
        "options": {},
        "seed": 0,
        "version": "0.1.0",
        **about,
    }
    save_file(changes, str(path), {"format": "pt", "scumble.edit": json.dumps(said)})
    return path


KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def value(model: str = "emoji", key: str = KEY) -> torch.Tensor:
    """A tensor of a model, by its name in edits."""
    component, _, name = key.partition(".")
    file = "model" if component.startswith("text") else "diffusion_pytorch_model"
    with safe_open(str(MODELS[model] / component / f"{file}.safetensors"), framework="pt") as opened:
        stored = name if name in opened.keys() else name.removeprefix("text_model.")  # noqa: SIM118
        return opened.get_tensor(stored).float()


@pytest.fixture
def untouched() -> Iterator[Any]:
    """A pipeline that no test of this kind may change."""
    pipe = pipeline()
    before = tensors(pipe)
    yield pipe
    assert same(before, tensors(pipe))
    assert scumble.unload_edit(pipe) is pipe
    assert same(before, tensors(pipe))


# Edits of every method, against what the program exports.


def test_every_method_is_tried() -> None:
    assert {method["id"] for method in scumble.run(["methods", "--json"]).output} == set(METHODS)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in NOT_WEIGHTS])
def test_an_edit_is_what_export_writes(
    method: str, erase: Callable[..., Path], export: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    edit = erase(method)
    pipe = pipeline()
    before = tensors(pipe)
    with caplog.at_level(logging.INFO, "scumble"):
        assert scumble.load_edit(pipe, edit) is pipe
    assert f"{count(edit)} of {count(edit)} tensors applied at strength 1.0 ({method}: church)" in caplog.text
    after, exported = tensors(pipe), pipeline(export(str(edit)))
    changed = moved(before, after)
    assert changed and len(changed) <= count(edit)
    close(after, tensors(exported), LOW_RANK if is_low_rank(edit) else 0)
    picture = draw(pipe)
    np.testing.assert_allclose(picture, draw(exported), rtol=0, atol=1e-4)
    assert scumble.unload_edit(pipe) is pipe
    assert same(before, tensors(pipe))
    assert not np.array_equal(picture, draw(pipe))


@pytest.mark.parametrize("method", ["uce", "few-shot", "leco"])
@pytest.mark.parametrize("strength", [-0.5, 0, 0.5, 1.5])
def test_a_strength_is_what_export_writes(
    method: str, strength: float, erase: Callable[..., Path], export: Callable[..., Path]
) -> None:
    edit = erase(method)
    pipe = pipeline()
    before = tensors(pipe)
    scumble.load_edit(pipe, edit / "edit.safetensors", strength)
    after, exported = tensors(pipe), pipeline(export(f"{edit}:{strength}"))
    assert same(before, after) == (strength == 0)
    close(after, tensors(exported), LOW_RANK if is_low_rank(edit) else 0)
    np.testing.assert_allclose(draw(pipe), draw(exported), rtol=0, atol=1e-4)
    scumble.unload_edit(pipe)
    assert same(before, tensors(pipe))


def test_strength_zero_keeps_every_bit(erase: Callable[..., Path]) -> None:
    """Also the sign of a zero."""
    pipe = pipeline()
    with torch.no_grad():
        pipe.unet.get_parameter(KEY[len("unet.") :]).fill_(-0.0)
    before = tensors(pipe)
    scumble.load_edit(pipe, erase("uce"), 0)
    assert same(before, tensors(pipe))


@pytest.mark.parametrize("dtype", list(ROUNDED))
@pytest.mark.parametrize("method", ["uce", "few-shot", "leco"])
def test_other_dtypes_are_rounded(
    method: str, dtype: torch.dtype, erase: Callable[..., Path], export: Callable[..., Path]
) -> None:
    edit = erase(method)
    for strength in (0.5, 1):
        pipe = pipeline(dtype=dtype)
        before = tensors(pipe)
        scumble.load_edit(pipe, edit, strength)
        after, exported = tensors(pipe), tensors(pipeline(export(f"{edit}:{strength}"), dtype))
        # At full strength an edit's values do not depend on the base.
        exact = strength == 1 and not is_low_rank(edit)
        close(after, exported, 0 if exact else ROUNDED[dtype], SMALLEST if dtype == torch.float16 else 0)
        assert moved(before, after) and all(t.dtype == dtype for t in after.values() if t.is_floating_point())
        scumble.unload_edit(pipe)
        assert same(before, tensors(pipe))


@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("sdxl", "uce"),
        ("sdxl", "esd"),
        ("sdxl", "leco"),
        ("sd1", "uce"),
        ("sd1", "leco"),
        ("sd2", "uce"),
        ("odd", "uce"),
    ],
)
def test_other_models(model: str, method: str, erase: Callable[..., Path], export: Callable[..., Path]) -> None:
    """SDXL, and models whose edits are factors: beside convolutions too (LECO on SD 1.x)."""
    edit = erase(method, model)
    assert is_low_rank(edit) == (method != "esd")
    for strength in (0, 0.5, 1):
        pipe = pipeline(model)
        before = tensors(pipe)
        scumble.load_edit(pipe, edit, strength)
        exported = pipeline(export(f"{edit}:{strength}", model=model))
        assert same(before, tensors(pipe)) == (strength == 0)
        close(tensors(pipe), tensors(exported), LOW_RANK if is_low_rank(edit) else 0)
        np.testing.assert_allclose(draw(pipe), draw(exported), rtol=0, atol=1e-4)
        scumble.unload_edit(pipe)
        assert same(before, tensors(pipe))


def test_every_component(here: Path, export: Callable[..., Path]) -> None:
    """Both text encoders, their projection and tables, and the autoencoder."""
    keys = [
        "text_encoder.text_model.embeddings.token_embedding.weight",
        "text_encoder.text_model.final_layer_norm.bias",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.weight",
        "text_encoder_2.text_projection.weight",
        "unet.conv_in.weight",
        "vae.decoder.conv_out.weight",
        "vae.decoder.mid_block.attentions.0.to_q.weight",
    ]
    changes = {key: value("sdxl", key) + 0.01 for key in keys}
    edit = by_hand(here / "everywhere.safetensors", changes, "stable-diffusion-xl-v1-base")
    pipe = pipeline("sdxl")
    before = tensors(pipe)
    scumble.load_edit(pipe, edit, 0.5)
    assert len(moved(before, tensors(pipe))) == len(keys)
    close(tensors(pipe), tensors(pipeline(export(f"{edit}:0.5", model="sdxl"))), 0)
    scumble.unload_edit(pipe)
    assert same(before, tensors(pipe))


@pytest.mark.parametrize("strength", [0.5, 1])
def test_it_draws_what_the_program_draws(strength: float, here: Path, erase: Callable[..., Path]) -> None:
    edit = erase("uce")
    folder = here / f"drawn-{strength}"
    words = ["generate", "a church", "--edit", f"{edit}:{strength}", "--sampler", "ddim", "--steps", "10"]
    words += ["--guidance-scale", "4", "--seed", "7", "--json", "-q", "--threads", "1"]
    drawn = scumble.run([*words, "--output-dir", folder]).output["pictures"][0]["file"]
    pipe = pipeline()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    plain = draw(pipe, 10)
    ours = draw(scumble.load_edit(pipe, edit, strength), 10)
    theirs = np.asarray(Image.open(drawn).convert("RGB")) / 255
    # Half a step of 8 bits, and what two programs round differently.
    assert np.abs(ours - theirs).max() <= 1 / 255
    assert np.abs(plain - theirs).max() > 0.1


def test_several_edits_add_up(erase: Callable[..., Path], export: Callable[..., Path]) -> None:
    first, second = erase("uce"), erase("esd")
    pipe = pipeline()
    before = tensors(pipe)
    scumble.load_edit(scumble.load_edit(pipe, first), second, 0.5)
    close(tensors(pipe), tensors(pipeline(export(str(first), f"{second}:0.5"))), LOW_RANK)
    scumble.unload_edit(pipe)
    assert same(before, tensors(pipe))
    # Nothing is left of them: the next one is alone.
    close(tensors(scumble.load_edit(pipe, second)), tensors(pipeline(export(str(second)))), 0)


def test_a_dtype_may_change_meanwhile(erase: Callable[..., Path]) -> None:
    pipe = scumble.load_edit(pipeline(), erase("uce"))
    pipe.to(torch.float16)
    scumble.unload_edit(pipe)
    assert same(tensors(pipe), tensors(pipeline().to(torch.float16)))


def test_the_models_own_files_stay(here: Path, erase: Callable[..., Path]) -> None:
    """Weights may be a file mapped into memory."""
    folder = here / "copy"
    shutil.copytree(MODELS["emoji"], folder)

    def content() -> dict[Path, str]:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = content()
    for edit in ("few-shot", "uce"):
        scumble.load_edit(pipeline(folder), erase(edit))
    assert content() == before


def test_pipelines_of_inference_mode(erase: Callable[..., Path]) -> None:
    with torch.inference_mode():
        pipe = pipeline().to(torch.float16)
    before = tensors(pipe)
    scumble.load_edit(pipe, erase("uce"))
    assert moved(before, tensors(pipe))
    assert same(before, tensors(scumble.unload_edit(pipe)))
    # And the other way round; what learns goes on learning.
    pipe = pipeline()
    with torch.inference_mode():
        scumble.load_edit(pipe, erase("uce"))
    weight = pipe.unet.get_parameter(KEY[len("unet.") :])
    weight.square().sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, 2 * weight.detach())


def test_pipelines_share_networks(erase: Callable[..., Path]) -> None:
    pipe = pipeline()
    before = tensors(pipe)
    other = AutoPipelineForImage2Image.from_pipe(pipe)
    scumble.load_edit(other, erase("uce"))
    assert moved(before, tensors(pipe))
    scumble.unload_edit(pipe)
    assert same(before, tensors(pipe))


def test_compiled_networks_and_loras(erase: Callable[..., Path], export: Callable[..., Path]) -> None:
    edit, exported = erase("uce"), export(str(erase("uce")))
    pipe = pipeline()
    before = tensors(pipe)
    network = pipe.unet
    pipe.unet = torch.compile(network)
    scumble.load_edit(pipe, edit)
    close(dict(network.state_dict()), dict(pipeline(exported).unet.state_dict()), 0)
    scumble.unload_edit(pipe)
    pipe.unet = network
    assert same(before, tensors(pipe))
    # With a LoRA beside it, and after the LoRA went.
    lora = export(str(erase("leco")), to="lora")
    pipe.load_lora_weights(lora.parent, weight_name=lora.name)
    plain = tensors(pipe)
    scumble.load_edit(pipe, edit)
    changed = moved(plain, tensors(pipe))
    assert len(changed) == count(edit) and all("base_layer" in key for key in changed)
    pipe.unload_lora_weights()
    close(tensors(pipe), tensors(pipeline(exported)), 0)
    scumble.unload_edit(pipe)
    assert same(before, tensors(pipe))


def test_nothing_is_kept_of_a_pipeline_that_is_gone(erase: Callable[..., Path]) -> None:
    gc.collect()
    kept = len(_apply._originals)
    pipe = scumble.load_edit(pipeline(), erase("uce"))
    assert len(_apply._originals) == kept + 1
    del pipe
    gc.collect()
    assert len(_apply._originals) == kept


def test_a_change_that_the_dtype_cannot_say(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit = by_hand(here / "small.safetensors", {KEY: value() * (1 + 2.0**-20)})
    pipe = pipeline(dtype=torch.float16)
    before = tensors(pipe)
    scumble.load_edit(pipe, edit)
    assert same(before, tensors(pipe)) and "every number is as it was" in caplog.text
    caplog.clear()
    scumble.load_edit(pipeline(), edit)
    assert not caplog.text


# What is refused.


def refused(pipe: Any, path: str | Path, *words: str, strength: float = 1.0) -> scumble.Error:
    with pytest.raises(scumble.Error) as caught:
        scumble.load_edit(pipe, path, strength)
    for word in words:
        assert word in str(caught.value), f"`{word}` is not in: {caught.value}"
    return caught.value


def test_missing_files(untouched: Any, here: Path, tmp_path: Path) -> None:
    refused(untouched, tmp_path / "nowhere", "nowhere", "no such file")
    refused(untouched, tmp_path, "a folder without edit.safetensors")
    refused(untouched, MODELS["emoji"], "is a model, not an edit", "from_pretrained")
    (tmp_path / "run.json").write_text("{}")
    refused(untouched, tmp_path, "holds a run", "not finished")


def test_damaged_files(untouched: Any, erase: Callable[..., Path], tmp_path: Path) -> None:
    whole = (erase("uce") / "edit.safetensors").read_bytes()
    path = tmp_path / "edit.safetensors"
    for content in (whole[:-100], whole[:1000], whole[:4], b"", b"\x80\x04 a pickle", b"PK\x03\x04" + bytes(100)):
        path.write_bytes(content)
        refused(untouched, path, str(path), "no whole safetensors file")


def test_files_that_are_no_edits(untouched: Any, here: Path, export: Callable[..., Path], erase: Any) -> None:
    for form in ("lora", "partial", "delta"):
        refused(untouched, export(str(erase("esd")), to=form), "is not an edit", "load_lora_weights", "inspect")
    path = here / "odd.safetensors"
    refused(untouched, by_hand(path, {KEY: value()}, format=2), "format 2", "upgrade")
    save_file({KEY: value()}, str(path), {"scumble.edit": "{"})
    refused(untouched, path, "scumble.edit", "not what it should be")
    save_file({KEY: value()}, str(path), {"scumble.edit": "[]"})
    refused(untouched, path, "scumble.edit", "expected an object")
    refused(untouched, by_hand(path, {}), "changes no tensor")
    refused(untouched, by_hand(path, {"weight": value()}), "weight names no component")
    refused(untouched, by_hand(path, {KEY: value().double()}), KEY, "float64")
    refused(untouched, by_hand(path, {KEY: value().to(torch.int32)}), KEY, "int32")


def test_numbers_that_are_not_finite(untouched: Any, here: Path) -> None:
    path = here / "edit-nan.safetensors"
    numbers = value()
    numbers[3, 5] = float("nan")
    numbers[4, 0] = float("inf")
    found = f"2 of {numbers.numel()} numbers are not finite, the first (nan) at [3, 5]"
    refused(untouched, by_hand(path, {KEY: numbers}), KEY, found)
    for strength in (float("nan"), float("inf"), -float("inf")):
        refused(untouched, by_hand(path, {KEY: value()}), "strength", "finite", strength=strength)
    # Finite in the edit, and not in the pipeline.
    last = "unet.up_blocks.0.resnets.0.conv1.bias"
    edit = by_hand(path, {KEY: value() + 1, last: value(key=last) + 1000})
    half = pipeline(dtype=torch.float16)
    before = tensors(half)
    refused(half, edit, "up_blocks.0.resnets.0.conv1.bias", "strength 100", "float16", strength=100)
    assert same(before, tensors(half))
    scumble.load_edit(half, edit)


def test_what_does_not_fit(untouched: Any, here: Path, erase: Callable[..., Path]) -> None:
    path = here / "misfit.safetensors"
    name = KEY.replace("unet.", "unet ")
    rows, columns = value().shape
    other = by_hand(path, {KEY: value()[:, :-1].contiguous()})
    refused(untouched, other, name, f"[{rows}, {columns - 1}]", f"[{rows}, {columns}]", "emoji-sd", "1 of 1")
    # One of two has no place: the other is not applied either.
    refused(
        untouched, by_hand(path, {KEY: value() + 1, "unet.nowhere.weight": value()}), "unet nowhere.weight", "1 of 2"
    )
    refused(untouched, by_hand(path, {"transformer.blocks.0.weight": value()}), "transformer blocks.0.weight")
    module = KEY[: -len(".weight")]
    down, up = torch.ones(2, columns), torch.ones(rows, 2)
    factors = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
    refused(untouched, by_hand(path, {f"{module}.lora_down.weight": down}), "one factor")
    refused(untouched, by_hand(path, {f"{module}.alpha": torch.ones(1)}), "one factor")
    refused(untouched, by_hand(path, {**factors, KEY: value()}), "changed twice")
    refused(untouched, by_hand(path, {**factors, f"{module}.alpha": torch.ones(2)}), "alpha", "expected one")
    for wrong in (torch.ones(rows, 3), torch.ones(rows), torch.ones(rows, 2, 3, 3)):
        refused(untouched, by_hand(path, {**factors, f"{module}.lora_up.weight": wrong}), "factors that do not fit")
    narrow = {**factors, f"{module}.lora_down.weight": torch.ones(2, columns - 1)}
    refused(untouched, by_hand(path, narrow), name, f"[{rows}, {columns - 1}]", f"[{rows}, {columns}]")
    # Edits of other models: names that are not there, and shapes.
    refused(untouched, erase("uce", "sd1"), "does not fit this pipeline", "made on", str(MODELS["sd1"]))
    refused(pipeline("sd2"), erase("uce"), "does not fit this pipeline", "made on emoji-sd")


def test_factors_without_an_alpha(here: Path, export: Callable[..., Path]) -> None:
    module = KEY[: -len(".weight")]
    rows, columns = value().shape
    factors = {
        f"{module}.lora_down.weight": torch.full((2, columns), 0.5),
        f"{module}.lora_up.weight": torch.ones(rows, 2),
    }
    edit = by_hand(here / "factors.safetensors", factors)
    pipe = scumble.load_edit(pipeline(), edit)
    close(tensors(pipe), tensors(pipeline(export(str(edit)))), LOW_RANK)


def test_other_families(untouched: Any, here: Path, erase: Callable[..., Path]) -> None:
    refused(untouched, erase("uce", "sdxl"), "stable-diffusion-xl", "StableDiffusionPipeline", "within its family")
    tiny = pipeline("sdxl")
    before = tensors(tiny)
    refused(tiny, erase("uce"), "stable-diffusion-custom", "StableDiffusionXLPipeline", "SDXL")
    assert same(before, tensors(tiny))
    path = here / "family.safetensors"
    refused(untouched, by_hand(path, {KEY: value()}, "flux"), "flux", "does not know")
    refused(object(), by_hand(path, {KEY: value()}), "object", "unet", "StableDiffusionXLPipeline")
    # A pipeline whose prompts come encoded has no text encoder.
    pipe = pipeline()
    pipe.text_encoder = None
    refused(pipe, erase("few-shot"), "text_encoder", "not in the pipeline")


def test_what_no_weights_can_hold(untouched: Any, erase: Callable[..., Path]) -> None:
    refused(untouched, erase("spm"), "spm", "close to the concept", "scumble export", "--to lora")
    refused(untouched, erase("receler"), "receler", "layers that diffusers does not have", "scumble generate --edit")
    for guard in ("safree", "negative", "sld-medium"):
        refused(untouched, erase(guard), f"guard `{guard}`", "scumble generate --edit", "scumble methods")


def test_networks_without_numbers(erase: Callable[..., Path]) -> None:
    pipe = pipeline()
    pipe.unet.to("meta")
    refused(pipe, erase("uce"), "meta device", "enable_model_cpu_offload")
    pipe = pipeline()
    pipe.unet.to(torch.float8_e4m3fn)
    refused(pipe, erase("uce"), "float8_e4m3fn", "quantized")


@pytest.mark.parametrize("problem", [KeyboardInterrupt, MemoryError])
def test_what_is_interrupted_is_put_back(
    problem: type[BaseException], erase: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = scumble.load_edit(pipeline(), erase("uce"), 0.5)
    before = tensors(pipe)
    write, calls = _apply._write, 0

    def failing(tensor: torch.nn.Parameter, numbers: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        write(tensor, numbers)
        if calls == 5:
            raise problem

    monkeypatch.setattr(_apply, "_write", failing)
    with pytest.raises(problem):
        scumble.load_edit(pipe, erase("esd"))
    assert calls == 10 and same(before, tensors(pipe))
    monkeypatch.undo()
    assert same(tensors(scumble.unload_edit(pipe)), tensors(pipeline()))


def test_what_cannot_be_taken_away(erase: Callable[..., Path]) -> None:
    pipe = pipeline()
    scumble.load_edit(scumble.load_edit(pipe, erase("uce")), erase("few-shot"))
    before = tensors(pipe)
    name = KEY[len("unet.") :]
    layer = pipe.unet.get_submodule(name[: -len(".weight")])
    weight = layer.weight
    layer.weight = torch.nn.Parameter(weight.detach()[:, :-1].clone())
    with pytest.raises(scumble.Error, match="cannot be taken away: unet mid_block.*of shape"):
        scumble.unload_edit(pipe)
    layer.weight = weight
    assert same(before, tensors(pipe))
    scumble.unload_edit(pipe)
    assert same(tensors(pipe), tensors(pipeline()))


# The program.


def test_what_the_program_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = scumble.run(["--version"])
    assert done.status == 0 and done.output.startswith("scumble ")
    lines: list[str] = []
    folder = here / "answer"
    words = ["erase", "church", "--method", "uce", "--no-judge", "--threads", "1", "--output-dir", str(folder)]
    done = scumble.run([*words, "--json"], progress=lines.append)
    assert done.output["method"] == "uce" and done.output["edit"] == str(folder / "edit.safetensors")
    assert any("church" in line for line in lines) and not any(line.endswith("\n") for line in lines)
    assert capsys.readouterr() == ("", "")
    # The stored result; stdout is text, and stderr goes to stderr.
    done = scumble.run(words)
    assert done.output.startswith("church: 14 tensors") and str(folder / "edit.safetensors") in done.output
    assert "is finished; here is its result" in capsys.readouterr().err


def test_what_the_program_refuses() -> None:
    said: list[str] = []
    with pytest.raises(scumble.Error) as caught:
        scumble.run(["erase", "churhc"], progress=said.append)
    error = caught.value
    assert error.message.startswith("the miniature does not know `churhc`") and error.status == 2
    assert error.hint is not None and "scumble concepts" in error.hint
    assert str(error) == f"{error.message}\n\nhint: {error.hint}"
    assert said[0] == f"error: {error.message}"
    done = scumble.run(["erase", "churhc", "--json"], progress=said.append, check=False)
    assert (done.output, done.status) == (None, 2)
    # The parser's own words.
    with pytest.raises(scumble.Error, match="unexpected argument '--nonsense'") as caught:
        scumble.run(["erase", "--nonsense"], progress=said.append)
    assert caught.value.hint is None and "Usage:" in caught.value.message
    for text in ("erase church", b"erase church"):
        with pytest.raises(TypeError, match="list of words"):
            scumble.run(text)  # type: ignore[arg-type]


def test_an_answer_that_is_no(here: Path) -> None:
    words = ["verify", "--reference", str(ROOT / "models/emoji-sd.reference.safetensors"), "--tolerance", "1e-12"]
    with pytest.raises(scumble.Error) as caught:
        scumble.run([*words, "--threads", "1", "--json"], progress=lambda line: None)
    assert caught.value.status == 1 and caught.value.output["passed"] is False
    done = scumble.run([*words, "--threads", "1", "--json"], progress=lambda line: None, check=False)
    assert done.status == 1 and done.output == caught.value.output


def stand_in(path: Path, text: str) -> Path:
    """A program for what the real one does not do."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_programs_that_misbehave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCUMBLE_BIN", str(stand_in(tmp_path / "program", "echo nonsense")))
    assert scumble.run([]).output == "nonsense\n"
    with pytest.raises(scumble.Error, match="no JSON"):
        scumble.run(["--json"])
    # More than a pipe holds, on both sides.
    stand_in(tmp_path / "program", "yes out | head -c 300000 & yes err | head -c 300000 >&2; wait")
    lines: list[str] = []
    assert len(scumble.run([], progress=lines.append).output) == 300000 and len(lines) == 75000
    stand_in(tmp_path / "program", "echo last words >&2; kill -9 $$")
    with pytest.raises(scumble.Error, match="signal 9 ended the program; its last words: last words") as caught:
        scumble.run([], progress=lines.append)
    assert caught.value.status == -9
    (tmp_path / "program").write_text("no program at all")
    with pytest.raises(scumble.Error, match="cannot be run"):
        scumble.run([])
    monkeypatch.setenv("SCUMBLE_BIN", str(tmp_path / "nothing"))
    with pytest.raises(scumble.Error, match="SCUMBLE_BIN is .*nothing"):
        scumble.run([])


def test_where_the_program_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCUMBLE_BIN")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(scumble._binary, "_folders", lambda: iter([tmp_path / "scripts"]))
    with pytest.raises(scumble.Error, match="neither in .*scripts nor on PATH"):
        scumble.find_binary()
    assert scumble.find_binary.__module__ == "scumble._binary"
    last = stand_in(tmp_path / "scumble", "")
    assert scumble.find_binary() == last
    (tmp_path / "scripts").mkdir()
    first = stand_in(tmp_path / "scripts/scumble", "")
    assert scumble.find_binary() == first


def python(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def test_python_m_scumble() -> None:
    child = python("-m", "scumble", "--version")
    assert child.communicate()[0] == scumble.run(["--version"]).output and child.returncode == 0
    child = python("-m", "scumble", "erase", "churhc")
    assert "does not know `churhc`" in child.communicate()[1] and child.returncode == 2


def test_the_program_needs_no_torch() -> None:
    code = (
        "import scumble, sys; scumble.run(['--version']); assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "try: scumble.load_edit(None, 'x')\n"
        "except scumble.Error as error: print(error)"
    )
    child = python("-c", code)
    out, err = child.communicate()
    assert child.returncode == 0, err
    assert "needs torch and safetensors" in out and "pip install 'scumble[diffusers]'" in out


LONG = ["erase", "church", "--method", "esd", "--no-judge", "--threads", "1", "--set", "trajectories=2"]
LONG += ["--set", "sampling_steps=3", "--set", "batch=2", "--set", "iterations=100000", "--verbose", "--json"]


def test_ctrl_c_stops_a_run_that_continues(here: Path) -> None:
    """As a terminal sends it: to the whole process group, once."""
    folder = here / "interrupted"
    words = [*LONG, "--output-dir", str(folder)]
    code = f"import scumble; scumble.run({words!r}, progress=lambda line: print(line, flush=True))"
    for _ in range(2):
        child = python("-c", code)
        assert child.stdout is not None
        while not (folder / "state").exists() or not any((folder / "state").iterdir()):
            assert child.poll() is None, child.communicate()
            time.sleep(0.1)
        time.sleep(1.5)
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert err.strip().endswith("KeyboardInterrupt"), err
        assert "stopping after this step" in out and "the same command continues from here" in out, out
        assert "stopped at once" not in out, out
        assert any((folder / "state").iterdir())
    # Nobody holds the folder any more.
    assert "continu" in out, out


def test_what_progress_raises_stops_the_program(here: Path) -> None:
    folder = here / "raised"

    class Enough(Exception):
        pass

    def progress(line: str) -> None:
        raise Enough(line)

    began = time.monotonic()
    with pytest.raises(Enough):
        scumble.run([*LONG, "--output-dir", folder], progress=progress)
    assert time.monotonic() - began < 60
    # It has ended: its folder can be taken over.
    done = scumble.run(
        ["erase", "church", "--method", "uce", "--no-judge", "-q", "--overwrite", "--output-dir", folder]
    )
    assert done.status == 0
