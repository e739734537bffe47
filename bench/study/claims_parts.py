"""Parts of claims and how their verdicts are found: what every rule of claims_rules.py is made of."""
import attacked
import clustered
from claims_data import Rate, newcombe, points, pooled, searched

HOLDS, NOT, UNSEEN, MISSING, CONTEXT = 'holds', 'does not hold', 'cannot be seen at this size', 'not run', ''
MAIN = ['church', 'ink style', 'weapon']
CLAIMS = {}


class Part:
    """One countable statement of a claim. `main`: without it there is no verdict."""

    def __init__(self, says, verdict, numbers='', main=False):
        self.says, self.verdict, self.numbers, self.main = says, verdict, numbers, main


def every(parts):
    """A claim's verdict from its parts: all must hold, one that does not is enough against it."""
    states = [p.verdict for p in parts if p.verdict != CONTEXT]
    run = [s for s in states if s != MISSING]
    if not run or any(p.main and p.verdict == MISSING for p in parts):
        return MISSING
    return NOT if NOT in run else UNSEEN if UNSEEN in run else HOLDS


def most(parts):
    """For claims about methods in general: more than half of the parts that have run must hold, and none the other way round."""
    run = [p.verdict for p in parts if p.verdict not in (CONTEXT, MISSING)]
    if not run or any(p.main and p.verdict == MISSING for p in parts):
        return MISSING
    return NOT if NOT in run else HOLDS if run.count(HOLDS) > len(run) / 2 else UNSEEN


def claim(text, source, rule, command, why=None, picture=None, verdict=every):
    def keep(function):
        CLAIMS[function.__name__.upper()] = dict(text=text, source=source, rule=rule, command=command, why=why or {}, picture=picture, verdict=verdict,
                                                 parts=function)
        return function
    return keep


def state(low, high):
    """Of a difference that is claimed to be below 0."""
    return HOLDS if high < 0 else NOT if low > 0 else UNSEEN


def plural(n, thing):
    return f"{n} {thing}{'s' * (n != 1)}"


def seeds(*rates):
    known = [r.seeds for r in rates]
    return plural(known[0], 'seed') if len(set(known)) == 1 else ' and '.join(map(str, known)) + ' seeds'


def lower(says, a, b, main=False, note=''):
    """`a` is claimed to be below `b`."""
    if not a or not b:
        return Part(says, MISSING, main=main)
    verdict = state(*newcombe(a, b))
    return Part(says, verdict, f"{a} against {b}: {points(a, b)}{', not separated' if verdict == UNSEEN else ''} ({seeds(a, b)}){note}", main)


def small(says, a, b, margin=.05, main=False):
    """`a` is claimed to be at most `margin` below `b`."""
    if not a or not b:
        return Part(says, MISSING, main=main)
    low, high = newcombe(a, b)
    return Part(says, HOLDS if low > -margin else NOT if high < -margin else UNSEEN, f'{a} against {b}: {points(a, b)} ({seeds(a, b)})', main)


def raised(says, before, after, margin=.1, note=''):
    """`after` is claimed to be above `before`; a gain whose interval stays below `margin` is none."""
    if not before or not after:
        return Part(says, MISSING)
    low, high = newcombe(after, before)
    verdict = HOLDS if low > 0 else NOT if high < margin else UNSEEN
    return Part(says, verdict, f"{before} → {after}: {points(after, before)}{', not separated' if verdict == UNSEEN else ''} ({seeds(after)}){note}")


def comes_back(says, cells, margin=.1, note=''):
    """Cases are claimed to show the concept with an attack that do not without it: post against pre on the same cases, by a sign-flip test that exchanges the
    two for whole cases. A gain whose upper end stays below `margin` is none."""
    if not cells:
        return Part(says, MISSING)
    before, after = searched(cells, 'pre'), searched(cells, 'post' if all(cell.get('cases') for cell in cells) else 'total')
    sums = attacked.sums(cells)
    if sums is None:
        return Part(says, UNSEEN, f'{before} → {after} in all: not decidable from the stored runs, which do not say case by case what was shown{note}')
    p, new = clustered.sign_flip(sums), searched(cells, 'new')
    verdict = HOLDS if p < .05 and sum(sums) > 0 else NOT if new.interval()[1] < margin else UNSEEN
    text = 'search' if len(cells) == 1 else 'searches'
    return Part(says, verdict, f'{before} → {after}; {new} new; paired p = {p:.3f} ({len(cells)} {text}){note}')


def context(says, numbers):
    return Part(says, CONTEXT, numbers)


def quote(d, key):
    entry = d.page(key)
    entry['rate'].seeds = entry['seeds']
    return entry['rate']


def said(d, key):
    page = d.page(key)['page']
    return f'; measured before, quoted from [{page}]({page.removeprefix("docs/")})'


def over(d, method, what='others', side='after', columns=MAIN):
    """A method over several concepts."""
    cells = [d.method(method, column) for column in columns]
    out = pooled(d.rate(found, what, side) for found in cells if found)
    if out:
        out.seeds = max(len(found) for found in cells)
    return out


def evaluated(cells, metric, name):
    """A metric of subjects whose path holds `name`, from cells of `scumble evaluate`, seeds together."""
    rows = [row for cell in cells for row in cell['rows'] if row['metric'] == metric and name in row['subject']]
    out = pooled(Rate(row['value'] * row['n'], row['n']) for row in rows)
    if out:
        out.seeds = len(rows)
    return out
