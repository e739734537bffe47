"""Makes samplers.json: what diffusers' schedulers do with a small made-up network. Needs diffusers 0.42 and scipy.

    python samplers.py > samplers.json
"""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

SHAPE = (2, 4, 3, 5)
INDEX = np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE)

SD1 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
CONFIGS = {
    # The scheduler_config.json of CompVis/stable-diffusion-v1-4: no timestep_spacing, so each class has its own.
    "sd14": SD1,
    "emoji": json.loads((Path(__file__).parents[4] / "models/emoji-sd/scheduler/scheduler_config.json").read_text()),
    # stabilityai/stable-diffusion-2-1
    "sd21v": SD1 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    # Not published with a model, but these keys occur together.
    "trailing-karras": SD1 | {"timestep_spacing": "trailing", "use_karras_sigmas": True, "set_alpha_to_one": True},
    "cosine": {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400, "timestep_spacing": "linspace",
               "skip_prk_steps": True, "clip_sample": False},
}
SAMPLERS = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler-a": (EulerAncestralDiscreteScheduler, {}),
    "dpm++2m": (DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpm++2m-karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (UniPCMultistepScheduler, {}),
}


def initial():
    return torch.tensor(1.4 * np.sin(0.7 * INDEX + 0.3), dtype=torch.float32)


def fresh(k):
    """The k-th noise a run draws."""
    return torch.tensor(np.cos(1.3 * INDEX + 2.1 * k), dtype=torch.float32)


def network(x, t):
    return 0.3 * torch.sin(1.7 * x) + 0.1 * x + 0.2 * np.sin(0.01 * float(t))


def run(scheduler, steps, eta=0.0, start=None):
    drawn = 0

    def randn_tensor(shape, **kwargs):
        nonlocal drawn
        assert tuple(shape) == SHAPE
        drawn += 1
        return fresh(drawn - 1)

    sys.modules[type(scheduler).__module__].randn_tensor = randn_tensor
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    # Without it a scheduler looks its first timestep up, and crashes where the first two are equal (cosine, Karras).
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start or 0)
    if start is None:
        x = initial() * scheduler.init_noise_sigma
    else:
        # As StableDiffusionImg2ImgPipeline does it.
        x = scheduler.add_noise(initial(), fresh(100), timesteps[start : start + 1])
        timesteps = timesteps[start:]
    labels = []
    for t in timesteps:
        seen = scheduler.scale_model_input(x, t)
        labels.append(float(t))
        extra = {"eta": eta} if isinstance(scheduler, DDIMScheduler) else {}
        x = scheduler.step(network(seen, t), t, x, **extra).prev_sample
    assert torch.isfinite(x).all()
    return {"timesteps": labels, "drawn": drawn, "x": [float(f"{v:.8g}") for v in x.flatten().tolist()]}


def main():
    cases = []
    for config_name, config in CONFIGS.items():
        for name, (cls, extra) in SAMPLERS.items():
            etas = [0.0, 0.7] if name == "ddim" else [0.0]
            for steps in [5, 20, 30] + ([50] if name == "pndm" else []):
                for eta in etas:
                    # LMS and PNDM from the middle are diffusers' own mistake; see their documentation here.
                    starts = [None] if name in ("lms", "pndm") or steps != 20 else [None, 7]
                    for start in starts:
                        scheduler = cls.from_config(config, **extra)
                        case = {"config": config_name, "sampler": name, "steps": steps, "eta": eta, "start": start}
                        cases.append(case | run(scheduler, steps, eta, start))
    tables = {}
    for name, config in CONFIGS.items():
        table = DDIMScheduler.from_config(config).alphas_cumprod.tolist()
        tables[name] = {t: table[t] for t in (0, 1, 2, 10, 100, 250, 399, 500, 501, 750, 998, 999) if t < len(table)}
    out = {"diffusers": diffusers.__version__, "configs": CONFIGS, "alphas_cumprod": tables}
    print(json.dumps(out)[:-1] + ', "cases": [')
    print(",\n".join(json.dumps(case) for case in cases))
    print("]}")


main()
