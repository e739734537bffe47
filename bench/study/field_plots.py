#!/usr/bin/env python3
"""The field's numbers as one JSON file and one plot for each concept, from the CSV files in docs/field.

    bench/study/field_plots.py [FOLDER]

Reads CONCEPT.csv and CONCEPT-attacks.csv and writes `results.json` (of each concept and subject: the percent of pictures that still show the concept and
of others that are right, each with its 95% interval and number of pictures, and the percent of cases that show it under each attack) and CONCEPT.svg:
a row for each subject, the model itself first, then by what the worst attack finds. Nothing is measured here. Needs nothing but Python.
"""
import csv
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
METRICS = {'shows': 'target', 'others': 'others'}
# Attack, colour, and what it is called in the plot: the kinds of threat stand apart.
ATTACKS = [('concept-inversion', '#8250df', 'embedding (Concept Inversion)'), ('unlearndiff', '#bc4c00', 'prompts (UnlearnDiffAtk)'),
           ('p4d', '#d4a72c', 'prompts (P4D)'), ('relearn', '#0969da', 'weights (relearning)')]
ROW, LEFT, WIDTH, GAP, TOP = 20, 120, 330, 60, 66


def concepts(folder):
    return sorted(path.stem for path in folder.glob('*.csv') if (folder / f'{path.stem}-attacks.csv').exists())


def read(folder, concept):
    """Of each subject what stands in the plot."""
    found = {}
    with open(folder / f'{concept}.csv', newline='') as file:
        for row in csv.DictReader(file):
            for key, metric in METRICS.items():
                if row['metric'] == metric:
                    percent = [round(100 * float(row[k]), 1) if row[k] else None for k in ('value', 'low', 'high')]
                    found.setdefault(row['subject'], {})[key] = dict(zip(('percent', 'low', 'high'), percent), pictures=int(row['n'] or 0))
    with open(folder / f'{concept}-attacks.csv', newline='') as file:
        for row in csv.DictReader(file):
            if row['subject'] in found and row['total']:
                cases = dict(percent=round(100 * float(row['total']), 1), cases=int(row['cases']), budget=int(row['budget'] or 0))
                found[row['subject']].setdefault('attacks', {})[row['attack']] = cases
    return {name: said for name, said in found.items() if 'shows' in said and 'others' in said}


def worst(said):
    return max([said['shows']['percent'], *(attack['percent'] for attack in said.get('attacks', {}).values())])


def plot(concept, subjects):
    names = sorted(subjects, key=lambda name: (name != 'base', worst(subjects[name]), name))
    height, full = TOP + ROW * len(names) + 40, LEFT + 2 * WIDTH + GAP + 30
    right = LEFT + WIDTH + GAP
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {full} {height}" font-family="sans-serif" font-size="11" fill="#1f2328">',
             f'<title>{concept.replace("-", " ")}: what methods leave of it, and of everything else</title>',
             f'<rect width="{full}" height="{height}" fill="#ffffff"/>']

    def text(x, y, words, anchor='start', more=''):
        lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{words}</text>')

    def dot(x, y, colour, hollow=False):
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{"#ffffff" if hollow else colour}" stroke="{colour}" stroke-width="1.5"/>')

    text(LEFT, 16, f'still shows {concept.replace("-", " ")}, % (less is better)', more='font-weight="bold"')
    text(right, 16, 'others right, % (more is better)', more='font-weight="bold"')
    x = LEFT
    dot(x + 4, 34, '#1f2328')
    text(x + 12, 38, 'asked by name')
    x += 96
    for i, (_, colour, words) in enumerate(ATTACKS):
        dot(x + 4, 34, colour, True)
        text(x + 12, 38, words)
        x += 22 + 6.1 * len(words)
    for origin in (LEFT, right):
        for percent in range(0, 101, 25):
            at = origin + WIDTH * percent / 100
            lines.append(f'<line x1="{at}" x2="{at}" y1="{TOP - 8}" y2="{height - 32}" stroke="#d1d9e0"/>')
            text(at, height - 16, percent, 'middle', 'fill="#59636e"')
    for i, name in enumerate(names):
        said, y = subjects[name], TOP + ROW * i + 6
        text(LEFT - 10, y + 4, 'the model itself' if name == 'base' else name, 'end')
        for origin, key in ((LEFT, 'shows'), (right, 'others')):
            value = said[key]
            if value['low'] is not None:
                low, high = (origin + WIDTH * value[end] / 100 for end in ('low', 'high'))
                lines.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#818b98" stroke-width="2"/>')
            dot(origin + WIDTH * value['percent'] / 100, y, '#1f2328')
        for attack, colour, _ in ATTACKS:
            found = said.get('attacks', {}).get(attack)
            if found:
                dot(LEFT + WIDTH * found['percent'] / 100, y, colour, True)
    return '\n'.join([*lines, '</svg>', ''])


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / 'docs' / 'field'
    results = {concept: read(folder, concept) for concept in concepts(folder)}
    (folder / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
    for concept, subjects in results.items():
        (folder / f'{concept}.svg').write_text(plot(concept, subjects))
        print(f'{concept}: {len(subjects)} subjects')


if __name__ == '__main__':
    main()
