"""Makes flow.json: what diffusers' flow-matching schedulers do with a small made-up network. Needs diffusers 0.42.

    python flow.py > flow.json
"""

import json

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

SHAPE = (2, 4, 3, 5)
INDEX = np.arange(np.prod(SHAPE), dtype=np.float64).reshape(SHAPE)
EULER, HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"

CONFIGS = {
    "plain": {"_class_name": EULER},
    # stabilityai/stable-diffusion-3-medium
    "sd3": {"_class_name": EULER, "num_train_timesteps": 1000, "shift": 3.0},
    # black-forest-labs/FLUX.1-schnell and FLUX.1-dev
    "schnell": {"_class_name": EULER, "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
                "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
    "dev": {"_class_name": EULER, "base_image_seq_len": 256, "base_shift": 0.5, "max_image_seq_len": 4096, "max_shift": 1.15,
            "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True},
    # Not published with a model, but these keys occur.
    "linear": {"_class_name": EULER, "use_dynamic_shifting": True, "time_shift_type": "linear", "base_shift": 0.7, "max_shift": 2.5,
               "base_image_seq_len": 64, "max_image_seq_len": 1024, "num_train_timesteps": 400},
    "terminal": {"_class_name": EULER, "shift": 2.0, "shift_terminal": 0.1},
    "dynamic-terminal": {"_class_name": EULER, "use_dynamic_shifting": True, "shift_terminal": 0.02},
    "karras": {"_class_name": EULER, "shift": 1.5, "use_karras_sigmas": True},
    "exponential": {"_class_name": EULER, "use_exponential_sigmas": True, "shift_terminal": 0.05},
    "heun": {"_class_name": HEUN, "num_train_timesteps": 1000, "shift": 1.0},
    "heun-shifted": {"_class_name": HEUN, "num_train_timesteps": 500, "shift": 3.0},
}


def initial():
    return torch.tensor(1.4 * np.sin(0.7 * INDEX + 0.3), dtype=torch.float32)


def network(x, t):
    return 0.3 * torch.sin(1.7 * x) + 0.1 * x + 0.2 * np.sin(0.01 * float(t))


def calculate_shift(config, tokens):
    """As FluxPipeline computes mu."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    return calculate_shift(tokens, config["base_image_seq_len"], config["max_image_seq_len"], config["base_shift"], config["max_shift"])


def run(name, steps, sigmas=None, tokens=None):
    config = CONFIGS[name]
    cls = {EULER: FlowMatchEulerDiscreteScheduler, HEUN: FlowMatchHeunDiscreteScheduler}[config["_class_name"]]
    scheduler = cls.from_config(config)
    mu = calculate_shift(scheduler.config, tokens) if tokens else None
    if cls is FlowMatchHeunDiscreteScheduler:
        scheduler.set_timesteps(steps)
    elif sigmas is None:
        scheduler.set_timesteps(steps, mu=mu)
    else:
        scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    x, states = initial(), []
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample
        states.append(x)
    assert torch.isfinite(x).all()
    short = lambda values: [float(f"{v:.9g}") for v in values]
    return {"config": name, "steps": steps, "given": sigmas, "tokens": tokens, "mu": mu, "timesteps": short(scheduler.timesteps.tolist()),
            "sigmas": short(scheduler.sigmas.tolist()), "x": short(x.flatten().tolist()),
            # The second state is the first after both halves of Heun's step.
            "second": short(states[1].flatten().tolist()[:8]) if len(states) > 1 else None}


def main():
    cases = []
    for name, config in CONFIGS.items():
        dynamic = config.get("use_dynamic_shifting")
        for steps in (1, 2, 4, 28):
            if steps == 1 and (config.get("shift_terminal") or config.get("use_karras_sigmas")):
                continue  # 0 / 0 in diffusers, or one level that is not the last
            for tokens in (256, 1024, 4096) if dynamic else (None,):
                cases.append(run(name, steps, tokens=tokens))
        if config["_class_name"] == EULER:
            # As FluxPipeline gives them.
            cases.append(run(name, 4, np.linspace(1.0, 1 / 4, 4).tolist(), 1024 if dynamic else None))
    print(json.dumps({"diffusers": diffusers.__version__, "configs": CONFIGS})[:-1] + ', "cases": [')
    print(",\n".join(json.dumps(case) for case in cases))
    print("]}")


main()
