"""What bench/study/compare measures: names, shapes, targets, counts of floating-point operations. Knows nothing of PyTorch.

A name is CELL/SIZE[@batch=N][@side=N], SIZE `mini` (the built-in miniature's shapes) or `sd14` (Stable Diffusion 1.4's, 256 pixels).
"""
from dataclasses import dataclass, field


def conv(c, n, side, stride=1, up=1):
    out = side * up // stride
    return dict(op='conv', c=c, n=n, side=side, out=out, stride=stride, up=up, flops=2 * 9 * c * c * n * out * out)


def attention(c, n, tokens, keys, heads):
    return dict(op='attention', c=c, n=n, tokens=tokens, keys=keys, heads=heads, flops=4 * n * tokens * keys * c)


def linear(c, d, rows):
    return dict(op='linear', c=c, d=d, rows=rows, flops=2 * rows * c * d)


OPERATIONS = {
    'conv3x3-96/mini': conv(96, 8, 8),
    'conv3x3-192/mini': conv(192, 8, 4),
    'conv3x3-s2-96/mini': conv(96, 8, 8, stride=2),
    'upsample-conv3x3-192/mini': conv(192, 8, 4, up=2),
    'self-attention-96/mini': attention(96, 8, 64, 64, 4),
    'cross-attention-96/mini': attention(96, 8, 64, 32, 4),
    'group-norm-silu-96/mini': dict(op='group-norm', c=96, n=8, side=8, flops=None),
    'layer-norm-96/mini': dict(op='layer-norm', c=96, rows=512, flops=None),
    'geglu-96/mini': dict(op='geglu', c=96, rows=512, flops=None),
    'linear-96x768/mini': linear(96, 768, 512),
    'conv3x3-320/sd14': conv(320, 2, 32),
    'conv3x3-640/sd14': conv(640, 2, 16),
    'conv3x3-1280/sd14': conv(1280, 2, 8),
    'conv3x3-s2-320/sd14': conv(320, 2, 32, stride=2),
    'upsample-conv3x3-640/sd14': conv(640, 2, 16, up=2),
    'self-attention-320/sd14': attention(320, 2, 1024, 1024, 8),
    'self-attention-1280/sd14': attention(1280, 2, 64, 64, 8),
    'cross-attention-320/sd14': attention(320, 2, 1024, 77, 8),
    'group-norm-silu-320/sd14': dict(op='group-norm', c=320, n=2, side=32, flops=None),
    'layer-norm-320/sd14': dict(op='layer-norm', c=320, rows=2048, flops=None),
    'geglu-320/sd14': dict(op='geglu', c=320, rows=2048, flops=None),
    'linear-320x2560/sd14': linear(320, 2560, 2048),
    'linear-1280x10240/sd14': linear(1280, 10240, 128),
}
# Forward, then backward to every input: three products of the forward's size.
OPERATIONS |= {name.replace('/', '-step/'): dict(shape, step=True, flops=shape['flops'] and 3 * shape['flops'])
               for name, shape in OPERATIONS.items()}

STEPS = ['unet-step-esd-x', 'unet-step-esd-x-strict', 'unet-step-esd-all']
NETWORKS = {
    'mini': ['unet-forward', *STEPS, 'vae-decode', 'vae-encode', 'text-encoder', 'picture-30'],
    'sd14': ['unet-forward', *STEPS, 'vae-decode', 'text-encoder', 'picture-3'],
}
PEAKS = {'unet-step-mini': 'unet-step-esd-x/mini', 'unet-step-sd14': 'unet-step-esd-x/sd14', 'picture-mini': 'picture-30/mini'}
BATCHES, SIDES, CONCEPTS = (1, 2, 4, 8, 16, 32), (16, 32, 64, 128), (1, 2, 4, 8)
PEAK_PRODUCT = 'peak/gemm'
END_TO_END = 'esd-end-to-end/mini'
TARGETS = {'unet-forward': .8, 'unet-step-': .7, 'picture-': .7, 'vae-decode': .8, 'esd-end-to-end': .08, 'peak-memory': .5}


@dataclass
class Cell:
    name: str
    kind: str                                                            # cell, run (end to end), memory, concepts (ours only)
    group: str                                                           # cells of a group share a pair of processes
    section: str                                                         # of RESULTS.md: networks, operations, peak, growth
    unit: str = 's'
    target: float | None = None
    flops: int | None = None
    asks: str = ''                                                       # what the sides are asked, if not the name
    ours: list = field(default_factory=list)
    theirs: list = field(default_factory=list)
    problem: str = ''
    differs: bool = False

    @property
    def compared(self):
        """Whether it is a comparison that goes into --json."""
        return self.section in ('networks', 'operations')

    def median(self, who):
        values = sorted(getattr(self, who))
        middle = len(values) // 2
        return None if not values else values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2

    @property
    def ratio(self):
        ours, theirs = self.median('ours'), self.median('theirs')
        return ours / theirs if ours is not None and theirs else None


def target(name):
    return next((value for start, value in TARGETS.items() if name.startswith(start)), None)


def everything():
    """All cells, in the order in which they are first covered."""
    def network(size):
        return [Cell(f'{n}/{size}', 'cell', size, 'networks', target=target(n)) for n in NETWORKS[size]]

    def operations(size):
        return [Cell(n, 'cell', 'operations', 'operations', flops=o['flops']) for n, o in OPERATIONS.items() if n.endswith(size)]

    return [
        *network('mini'),
        Cell(END_TO_END, 'run', 'runs', 'networks', target=target(END_TO_END)),
        *network('sd14'),
        *[Cell(f'peak-memory/{n}', 'memory', 'memory', 'networks', unit='bytes', target=target('peak-memory'), asks=asks)
          for n, asks in PEAKS.items()],
        *operations('mini'), *operations('sd14'),
        Cell(PEAK_PRODUCT, 'cell', 'operations', 'peak', flops=2 * 2048 ** 3),
        *[Cell(f'unet-forward/mini@batch={n}', 'cell', 'growth', 'growth') for n in BATCHES],
        *[Cell(f'unet-forward/mini@side={n}', 'cell', 'growth', 'growth', asks=f'unet-forward/mini@batch=1@side={n}') for n in SIDES],
        *[Cell(f'erase/mini@concepts={n}', 'concepts', 'runs', 'growth') for n in CONCEPTS],
    ]
