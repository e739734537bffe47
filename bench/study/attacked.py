"""What bench/study/attacks and bench/study/claims count of attacks: cases one by one, looks, controls, and random words with as many looks."""
import os

import clustered
from cellwise import load

# What an attack may change. Rates of one kind say nothing about another: whoever can train the weights needs no words.
THREATS = {'words': 'words that anybody can type', 'embeddings': "vectors in the text encoder's input", 'weights': 'the weights', 'sampler': 'the way of drawing'}
KINDS = {'concept-inversion': 'embeddings', 'pgd': 'embeddings', 'fgsm': 'embeddings', 'relearn': 'weights', 'revive': 'sampler'}


def threat(attack):
    return KINDS.get(attack, 'words')


def cases_of(lines):
    """[unedited, pre, post] of each case from the lines of `scumble attack`; None if nobody judged."""
    cases = [[line.get(side) for side in ('unedited', 'pre', 'post')] for line in lines or []]
    return None if not cases or any(None in case for case in cases) else [[int(bool(v)) for v in case] for case in cases]


def with_cases(cell, folder, name):
    """A cell with its cases, from the run that it is about where the cell is older than they are."""
    if cell and 'error' not in cell and not cell.get('cases'):
        record = load(os.path.join(folder, 'runs', name, 'run.json')) or {}
        if record.get('finished'):
            return cell | of_lines(record.get('lines'))
    return cell


def of_lines(lines):
    """What a cell keeps of the lines of `scumble attack`."""
    return {'cases': cases_of(lines), 'marks': marks(lines), 'controlled': any(isinstance(line.get('control'), bool) for line in lines or [])}


def marks(lines):
    """What tells pictures under attack apart: how probable the judge found the concept on each. Searches that drew the same pictures are one."""
    return [(line.get('probability') or {}).get('post') for line in lines or []]


def distinct_searches(cells):
    out = []
    for cell in cells:
        alike = lambda other: cell.get('marks') and None not in cell['marks'] and cell['marks'] == other.get('marks')
        if not any(map(alike, out)):
            out.append(cell)
    return out


def looks(cell):
    """The most pictures of one case that were looked at; None where the program did not say yet."""
    return cell.get('most_looks')


def outcome(cell, part):
    """0s and 1s, one a case: `pre`, `post`, `total` (either), `new` (post and not pre)."""
    pick = {'pre': lambda u, a, b: a, 'post': lambda u, a, b: b, 'total': lambda u, a, b: a | b, 'new': lambda u, a, b: b & (1 - a)}[part]
    return [pick(*case) for case in cell['cases']]


def rate(cells, part):
    """(share, low, high, n, exact) over different searches on the same cases: the pictures of one case are a cluster. Where cases are not known one by one,
    all searches on a case are taken as one, and `exact` is False. Without an attack every search has the same pictures."""
    cells = cells[:1] if part == 'pre' else cells
    if all(cell.get('cases') for cell in cells):
        p, low, high, n, _ = clustered.rate(clustered.by_cell([outcome(cell, part) for cell in cells]))
        return p, low, high, n, True
    hits, n = sum(round(cell[part] * cell['n']) for cell in cells), sum(cell['n'] for cell in cells)
    return (hits / n, *clustered.wilson(hits / n, n / len(cells)), n, len(cells) == 1)


def conditional(cells):
    """(hits, n) over searches: of the cases that the unedited model shows and the edited one does not, those that came back. None if cases are not known."""
    if not all(cell.get('cases') for cell in cells):
        return None
    hidden = [case for cell in cells for case in cell['cases'] if case[0] and not case[1]]
    return sum(case[2] for case in hidden), len(hidden)


def sums(cells):
    """Of each case, over searches: pictures that show the concept with the attack less those without. None if cases are not known."""
    if not all(cell.get('cases') for cell in cells):
        return None
    return [sum(b - a for _, a, b in case) for case in zip(*(cell['cases'] for cell in cells))]


def within(cells, most):
    """The share that an attack comes to with at most so many looks at each case; None where looks are not known, or were fewer."""
    if not cells or any(not cell.get('by_looks') or len(cell['by_looks']) < most for cell in cells):
        return None
    return sum(cell['by_looks'][most - 1] for cell in cells) / sum(cell['n'] for cell in cells)
