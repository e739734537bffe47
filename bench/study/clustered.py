"""Intervals and tests of pictures that are not independent, for the tables that the benches write.

Pictures of one prompt and noise, drawn after several erasures or under several attacks, are a cluster: whatever is hard about that prompt and that noise
is in all of them. What is computed here is what scumble's `crates/eval/src/statistics` computes; `python3 bench/study/clustered.py` tests it. Needs nothing
but Python.

Words: a *cell* is a prompt and a noise (a place in a list of 0s and 1s), a *run* is a seed of the erasure or of the attack.
"""
import math
import random

Z = 1.96


def wilson(p, n, z=Z):
    """Wilson's score interval (1927) of a share `p` of `n` pictures; `n` need not be whole."""
    if n <= 0:
        return 0., 1.
    d = 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0. if p <= 0 else max(0., (p + z * z / (2 * n) - half) / d)
    return low, 1. if p >= 1 else min(1., (p + z * z / (2 * n) + half) / d)


def clusters(groups):
    """Groups of 0s and 1s without the empty ones."""
    return [list(group) for group in groups if len(group)]


def design(groups):
    """(share, effective number of pictures) of clusters of 0s and 1s.

    Kish's design effect, 1 + (m - 1) rho: m is the mean size of the cluster that a picture lies in, rho how much alike the pictures of a cluster are,
    from the spread of the clusters' sums. Where few clusters hold the rarer answer nothing can be known of rho (0 of 144 is as likely to be 0 of 48 three
    times), so it is drawn towards 1, by as much as one more such cluster that is all alike.
    """
    groups = clusters(groups)
    n, c = sum(map(len, groups)), len(groups)
    p, m = sum(map(sum, groups)) / n, sum(len(g) ** 2 for g in groups) / n
    if m == 1 or c < 2:
        return p, float(n)
    rare = 1 if p <= .5 else 0
    informative, rho = sum(rare in g for g in groups), 1.
    if 0 < p < 1:
        between = c / (c - 1) * sum((sum(g) - p * len(g)) ** 2 for g in groups) / n ** 2
        rho = min(1., max(0., (between / (p * (1 - p) / (n - 1)) - 1) / (m - 1)))
    rho = (informative * rho + m) / (informative + m)
    return p, n / (1 + (m - 1) * rho)


def student(df):
    """The 0.975 quantile of Student's distribution, by bisection of its tail (Simpson's rule on the density)."""
    const = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    density = lambda t: const * (1 + t * t / df) ** (-(df + 1) / 2)

    def inside(t, steps=400):
        h = t / steps
        return 2 * h / 3 * (density(0) + density(t) + 4 * sum(density(h * k) for k in range(1, steps, 2)) + 2 * sum(density(h * k) for k in range(2, steps, 2)))

    low, high = 0., 20.
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < .95 else (low, middle)
    return (low + high) / 2


def rate(groups):
    """(share, low, high, pictures, clusters): Wilson's interval at the effective number of pictures, with Student's quantile where clusters are few."""
    groups = clusters(groups)
    n = sum(map(len, groups))
    if not n:
        return 0., 0., 1., 0, 0
    p, effective = design(groups)
    z = Z if all(len(g) == 1 for g in groups) or len(groups) < 2 else student(len(groups) - 1)
    return (p, *wilson(p, effective, z), n, len(groups))


def by_cell(runs):
    """Lists of 0s and 1s, one a run, all of the same cells in one order: the clusters of cells."""
    return [list(cell) for cell in zip(*runs)]


def distinct(runs):
    """Runs that came out alike counted once: an edit that draws nothing at random is one edit however often it is made."""
    out = []
    for run in runs:
        if run not in out:
            out.append(run)
    return out


def bootstrap(groups, statistic, draws=2000, seed=0):
    """(value, low, high): the percentile bootstrap of a statistic of clusters, which are drawn again whole."""
    rng = random.Random(seed)
    found = sorted(statistic([rng.choice(groups) for _ in groups]) for _ in range(draws))
    return statistic(groups), found[round(.025 * (draws - 1))], found[round(.975 * (draws - 1))]


def sign_flip(sums):
    """Exact two-sided p of paired differences, one whole number for each cluster: how likely a total as far from 0 is if each cluster's sign were a coin's.

    Of clusters of one picture this is McNemar's exact test.
    """
    ways = {0: 1}
    for size in (abs(s) for s in sums if s):
        after = {}
        for total, count in ways.items():
            for sign in (size, -size):
                after[total + sign] = after.get(total + sign, 0) + count
        ways = after
    seen, every = abs(sum(sums)), sum(ways.values())
    return sum(count for total, count in ways.items() if abs(total) >= seen) / every


def holm(ps):
    """Holm's adjusted p-values (1979), in the order given."""
    order, out, most = sorted(range(len(ps)), key=ps.__getitem__), [1.] * len(ps), 0.
    for rank, i in enumerate(order):
        most = max(most, min(1., (len(ps) - rank) * ps[i]))
        out[i] = most
    return out


def self_test():
    """Raises where a number is not what it has to be; run by the benches before they write a table."""
    close = lambda a, b, e=1e-6: abs(a - b) < e or (_ for _ in ()).throw(AssertionError(f'{a} is not {b}'))
    # scipy.stats.t.ppf(.975, [1, 9, 30, 47])
    for df, t in ((1, 12.706204736), (9, 2.262157163), (30, 2.042272456), (47, 2.011740514)):
        close(student(df), t, 1e-3 if df == 1 else 1e-6)
    # Of pictures that share nothing it is Wilson's interval: its ends are the shares from which 3 of 48 is 1.96 of their own deviations away.
    p, low, high, n, c = rate([[1]] * 3 + [[0]] * 45)
    assert (p, n, c) == (.0625, 48, 48) and low < p < high
    for end in (low, high):
        close(abs(p - end), Z * math.sqrt(end * (1 - end) / 48), 1e-12)
    # One edit made three times says as much as one made once.
    once = [1, 0, 0, 1] * 12
    assert distinct([once, once, once]) == [once]
    # None of 144 pictures of 48 cells: as none of 48, with Student's quantile. Three runs that always agree: as one.
    close(design([[0, 0, 0]] * 48)[1], 48)
    close(design([[1, 1, 1]] * 24 + [[0, 0, 0]] * 24)[1], 48, 1e-9)
    # Runs that have nothing to do with each other keep their number: 12 hits of 144, each in a cell of its own.
    assert 95 < design([[1, 0, 0]] * 12 + [[0, 0, 0]] * 36)[1] <= 144
    # More hits never look surer from above than fewer: with each hit the upper end rises.
    ends = [rate([[1, 0, 0]] * k + [[0, 0, 0]] * (48 - k))[2] for k in range(24)]
    assert ends == sorted(ends), ends
    # scipy.stats.binomtest(1, 10, .5).pvalue; four clusters of three against one: 2 of 2^5 ways are as far, and 4 and 6 further on both sides.
    close(sign_flip([1] * 9 + [-1]), .021484375, 1e-12)
    close(sign_flip([3, 3, 3, 3]), 2 / 16, 1e-12)
    close(sign_flip([3, -3, 0]), 1., 1e-12)
    close(sign_flip([]), 1., 1e-12)
    # p.adjust(c(.01, .04, .03, .005), "holm") of R
    for found, expected in zip(holm([.01, .04, .03, .005]), (.03, .06, .06, .02)):
        close(found, expected, 1e-12)
    value, low, high = bootstrap([[1, 1], [0, 0], [1, 0], [0, 0]] * 12, lambda gs: sum(map(sum, gs)) / sum(map(len, gs)))
    assert low < value < high and value == .375
    # Coverage at a true rate of 0.06 with pictures of a cell half alike: what is promised is 95%.
    rng, held, naive, trials = random.Random(1), 0, 0, 300
    for _ in range(trials):
        groups = []
        for _ in range(48):
            first = rng.random() < .06
            groups.append([int(first if rng.random() < .707 else rng.random() < .06) for _ in range(3)])
        _, low, high, n, _ = rate(groups)
        held += low <= .06 <= high
        low, high = wilson(sum(map(sum, groups)) / n, n)
        naive += low <= .06 <= high
    assert held / trials > .93 > naive / trials, (held / trials, naive / trials)


if __name__ == '__main__':
    self_test()
    print('clustered: all as it has to be')
