"""The recursion of SLD in numpy, for tests/guards.rs: prints the literals of `SLD`."""
import numpy as np

f = np.float32


def wave(k, seed):
    return np.sin(f(0.7) * np.arange(k, dtype=np.float64) + seed)


def run(delta, scale, threshold, momentum, memory, g=4.0, steps=3, k=6):
    nu = np.zeros(k)
    out = []
    for i in range(steps):
        p, z, s = 0.02 * wave(k, 1.0 + i), 0.02 * wave(k, 2.0 + 2 * i), 0.02 * wave(k, 1.3 + 1.1 * i)
        apart = p - s
        mu = np.where(apart >= threshold, 0.0, np.minimum(1.0, scale * np.abs(apart)))
        gamma = mu * (s - z) + momentum * nu
        nu = memory * nu + (1 - memory) * gamma
        d = p - z
        if i >= delta:
            d = d - gamma
        out.append(z + g * d)
    return np.array(out)


for name, numbers in [("weak", (1, 200.0, 0.0, 0.0, 0.0)), ("strong", (1, 2000.0, 0.025, 0.5, 0.7)), ("own", (0, 30.0, 0.01, 0.3, 0.4))]:
    print(name, np.array2string(run(*numbers).ravel(), separator=", ", precision=7, max_line_width=130))
