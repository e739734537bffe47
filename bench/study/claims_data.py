"""What bench/study/claims computes from: counts, their intervals, and the files that other benches have left."""
import functools
import json
import math
import os
import random

import attacked
import clustered
from cellwise import distinct_edits, hits_of, load


class Rate:
    """Hits of n pictures, which tell as much as `effective` independent ones would: fewer where they share prompts and noise."""

    def __init__(self, hits, n, seeds=1, effective=None):
        self.hits, self.n, self.seeds, self.effective = round(hits), n, seeds, n if effective is None else effective

    def __add__(self, other):
        return Rate(self.hits + other.hits, self.n + other.n, max(self.seeds, other.seeds), self.effective + other.effective)

    def interval(self, z=clustered.Z):
        return clustered.wilson(self.value, self.effective, z)

    @property
    def value(self):
        return self.hits / self.n if self.n else 0.

    def __str__(self):
        low, high = self.interval()
        return f'{100 * self.value:.1f}% [{100 * low:.0f}, {100 * high:.0f}] of {self.n}'


def pooled(rates):
    rates = [r for r in rates if r]
    return functools.reduce(lambda a, b: a + b, rates) if rates else None


def newcombe(a, b, z=1.96):
    """95% interval of a's share minus b's, taken as if the two had drawn from different noise (Newcombe 1998, method 10: from both Wilson intervals, each at
    its effective number of pictures)."""
    (al, ah), (bl, bh), d = a.interval(z), b.interval(z), a.value - b.value
    return (d - math.hypot(a.value - al, bh - b.value), d + math.hypot(ah - a.value, b.value - bl))


def points(a, b):
    """A difference in words: percentage points with the interval."""
    low, high = newcombe(a, b)
    return f'{100 * (a.value - b.value):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]'


def sign_test(won, lost):
    """Two-sided exact p of a sign test (McNemar's exact test)."""
    n, k = won + lost, min(won, lost)
    return min(1., 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n) if n else 1.


def ranks(values):
    order, out, i = sorted(range(len(values)), key=values.__getitem__), [0.] * len(values), 0
    while i < len(order):
        j = i
        while j + 1 < len(order) and values[order[j + 1]] == values[order[i]]:
            j += 1
        for k in order[i:j + 1]:
            out[k] = (i + j) / 2
        i = j + 1
    return out


def correlation(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mx) * (b - my) for a, b in zip(x, y))
    along = math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))
    return across / along if along else 0.


def spearman(groups, draws=1000):
    """Rank correlation of the pairs of all groups, and its 95% interval by bootstrap over groups (pairs of one group are not independent)."""
    def of(chosen):
        pairs = [pair for group in chosen for pair in group]
        return correlation(ranks([a for a, _ in pairs]), ranks([b for _, b in pairs]))

    rng = random.Random(0)
    found = sorted(of([rng.choice(groups) for _ in groups]) for _ in range(draws))
    return of(groups), found[round(.025 * (draws - 1))], found[round(.975 * (draws - 1))]


def searched(cells, part):
    """A Rate over searches on the same cases; None of none."""
    if not cells:
        return None
    cells = cells[:1] if part == 'pre' else cells
    n = sum(cell['n'] for cell in cells)
    if all(cell.get('cases') for cell in cells):
        runs = [attacked.outcome(cell, part) for cell in cells]
        return Rate(sum(map(sum, runs)), n, len(cells), clustered.design(clustered.by_cell(runs))[1])
    return Rate(sum(cell[part] * cell['n'] for cell in cells), n, len(cells), n / len(cells))


class Data:
    """Files of the other benches below `data`, cells of this one in `folder`, and what pages say (bench/study/quoted.json)."""

    def __init__(self, data, folder, quoted):
        self.data, self.folder = data, folder
        with open(quoted) as file:
            self.quoted = json.load(file)

    # bench/study/methods

    def method(self, method, column):
        """Finished cells of a method, by seed; an edit that came out the same again (closed forms draw nothing at random) counts once."""
        found = [load(os.path.join(self.data, 'methods', 'cells', f"{method}-{column.replace(' ', '-')}-{seed}.json")) for seed in range(3)]
        return distinct_edits([cell for cell in found if cell and 'error' not in cell])

    def own(self, name, count=None):
        """A cell of bench/study/claims, or those of `name`-0, `name`-1, ... together."""
        names = [name] if count is None else [f'{name}-{seed}' for seed in range(count)]
        found = [load(os.path.join(self.folder, 'cells', name + '.json')) for name in names]
        found = [cell for cell in found if cell and 'error' not in cell]
        return found if count is not None else found[0] if found else None

    @staticmethod
    def rate(cells, what='target', side='after'):
        """All edits (and concepts) of cells together; of the unedited model each picture once. Pictures of one prompt and noise after several edits hang
        together; where single pictures are not known they are taken as one."""
        of = cells if side == 'after' else cells[:1]
        out = pooled(Rate(part[what]['hits'], part[what]['n']) for cell in of for part in cell['rates'][side] if part)
        if out:
            out.seeds = len(cells)
            groups = hits_of(of, what) if side == 'after' and what in ('target', 'others') else None
            exact = groups and sum(map(len, groups)) == out.n
            out.effective = clustered.design(groups)[1] if exact else out.n / len(of)
        return out

    @staticmethod
    def drift(cells):
        return [cell['uncond_drift'] for cell in cells]

    # bench/study/attacks

    def searches(self, attack, subject, concept='church'):
        """Finished cells of an attack, different searches only, with their cases where they are known."""
        folder, found = os.path.join(self.data, 'attacks'), []
        for seed in range(3):
            name = f"{attack}-{subject}-{concept.replace(' ', '-')}-{seed}"
            cell = attacked.with_cases(load(os.path.join(folder, 'cells', name + '.json')), folder, name)
            if cell and 'error' not in cell:
                found.append(cell)
        return attacked.distinct_searches(found)

    def attack(self, attack, subject, concept='church', part='total'):
        """Cases that show the concept under an attack, searches together; `pre`: without it, which every search has alike."""
        return searched(self.searches(attack, subject, concept), part)

    def attack_notes(self, attack, subject, concept='church'):
        record = load(os.path.join(self.data, 'attacks', 'runs', f"{attack}-{subject}-{concept.replace(' ', '-')}-0", 'run.json'))
        return (record or {}).get('notes') or {} if (record or {}).get('finished') else {}

    # bench/study/field

    @functools.cached_property
    def field(self):
        """{(subject, metric): row} of the field's church; a subject is a method's or a guard's name."""
        out = {}
        try:
            with open(os.path.join(self.data, 'field', 'church', 'results.jsonl')) as file:
                for line in file:
                    row = json.loads(line)
                    out[self.name(row['subject']), row['metric']] = row
        except (OSError, ValueError, KeyError):
            return {}
        return out

    @functools.cached_property
    def evaluation(self):
        return load(os.path.join(self.data, 'field', 'church', 'evaluation.json')) or {}

    @staticmethod
    def name(subject):
        return os.path.basename(subject).removesuffix('-church-0').removesuffix('-church').split('=')[0]

    def subjects(self):
        return list(dict.fromkeys(subject for subject, _ in self.field if subject != 'base'))

    def metric(self, subject, metric):
        row = self.field.get((subject, metric))
        return Rate(row['value'] * row['n'], row['n']) if row else None

    def paired(self, metric, subject):
        """McNemar's test of base against a subject on the same pictures: (lost, won, p)."""
        for test in self.evaluation.get('paired') or []:
            if test['metric'] == metric and test['a'] == 'base' and self.name(test['b']) == subject:
                return test['only_a'], test['only_b'], test['p']
        return None

    # scumble evaluate --impact

    @functools.cached_property
    def impact(self):
        return (load(os.path.join(self.data, 'impact', 'evaluation.json')) or {}).get('impact')

    # pages

    def page(self, key):
        """A number that a page of the documentation states: its entry in bench/study/quoted.json, with a Rate under `rate` where it has hits."""
        entry = self.quoted[key]
        return entry | ({'rate': Rate(entry['hits'], entry['n'])} if 'hits' in entry else {})
