"""The runs that bench/study/claims makes itself: what each claim needs beyond bench/study/methods, bench/study/attacks and bench/study/field."""
import fnmatch
import json
import os
import subprocess
import sys
import time

import attacked
from cellwise import ROOT, commit, done, file_of, load, store

STYLES = 'noto blob twemoji fluent ink emojione'.split()
COLOURS = 'white yellow blue pink green grey'.split()
TEN = 'church truck owl guitar pizza dog rocket rose radio crown'.split()
# Prompts in which a word learned on `a church in X style` never stood.
UNTRAINED = [f'a church on a {colour} background' for colour in COLOURS] + \
            [f'a church in {style} style on a {COLOURS[(n + k) % 6]} background' for n, style in enumerate(STYLES) for k in (1, 2, 4)]
ETAS = (0, 3)
ANCHORS = {'house': 'a house', 'car': 'a car', 'word': 'a building'}
# What the adversarial trainings of C13 to C15 are told besides; `default` is the training that they are compared with.
ADVERSARIAL = {
    'C13': {'default': [], 'steps-5': ['--set', 'attack_steps=5'], 'steps-40': ['--set', 'attack_steps=40'], 'fast': ['--set', 'attack=fast']},
    'C14': {'first-layer': ['--train-method', 'text-first']},
    'C15': {'retain-neighbours': ['--captions', 'WITH'], 'retain-others': ['--captions', 'WITHOUT']},
}
# Retain sets of C15, of one size: the other buildings are among the first and not among the second.
RETAINED = {'WITH': 'house tree car dog owl guitar pizza rocket rose radio crown butterfly'.split(),
            'WITHOUT': 'apple tree car dog owl guitar pizza rocket rose radio crown butterfly'.split()}
WORDS = ('esd', 'uce', 'sa', 'spm', 'esd-u', 'fmn', 'ac', 'rece')


def erase(concept, seed, *options):
    return {'kind': 'erase', 'concept': concept, 'seed': seed, 'options': list(options)}


def cells():
    """{claim: {name: what is run}}, cheapest and most telling first within a claim."""
    out = {f'C{n}': {} for n in range(1, 31)}
    for seed in range(3):
        for eta in ETAS[::-1]:
            out['C3'][f'eta-{eta}-church-{seed}'] = erase('church', seed, '--method', 'esd', '--eta', str(eta))
        out['C1'][f'esd-u-ink-style-{seed}'] = erase('ink style', seed, '--method', 'esd', '--train-method', 'esd-u')
        out['C2'][f'esd-u-weapon-{seed}'] = erase('weapon', seed, '--method', 'esd', '--train-method', 'esd-u')
        for concept in ('owl', 'guitar', 'dog', 'car', 'truck'):
            out['C5'][f'esd-{concept}-{seed}'] = erase(concept, seed, '--method', 'esd')
    out['C2'] |= {f'implicit-weapon-{seed}': {'kind': 'evaluate', 'sets': 'implicit', 'edits': [f'methods/runs/esd-weapon-{seed}', f'claims/runs/esd-u-weapon-{seed}']}
                  for seed in range(3)}
    for seed in range(3):
        out['C11'][f'advunlearn-no-retain-church-{seed}'] = erase('church', seed, '--method', 'advunlearn', '--set', 'retain=0')
        for claim, names in ADVERSARIAL.items():
            out[claim] |= {f'advunlearn-{name}-church-{seed}': erase('church', seed, '--method', 'advunlearn', *options) | {'kind': 'attacked'}
                           for name, options in names.items()}
    out['C8'] = {f'word-{subject}-{seed}': {'kind': 'word', 'subject': subject, 'seed': seed} for seed in range(2) for subject in WORDS}
    out['C23'] = {f'outside-church-{seed}': {'kind': 'evaluate', 'sets': 'paraphrase', 'edits': [f'methods/runs/{m}-church-{seed}' for m in ('ac', 'doco')]}
                  for seed in range(3)}
    for concept, anchors in (('church', ANCHORS), ('dog', {'cat': 'a cat', 'car': 'a car', 'word': 'an animal'}),
                             ('apple', {'strawberry': 'a strawberry', 'car': 'a car', 'word': 'a fruit'})):
        if concept != 'church':
            out['C27'][f'anchor-empty-{concept}'] = erase(concept, 0, '--method', 'uce')
        for name, prompt in anchors.items():
            out['C27'][f'anchor-{name}-{concept}'] = erase(concept, 0, '--method', 'uce', '--anchor', prompt)
    out['C30'] = {'sequence-10-uce': {'kind': 'sequence', 'objects': TEN, 'method': 'uce'}}
    return out


class Runner:
    """Runs one cell at a time, in folders below `folder`; edits of other benches are read from `data`."""

    def __init__(self, args):
        self.scumble, self.folder, self.data = args.scumble, args.folder, args.data
        self.extra = ['--threads', str(args.threads)] if args.threads else []

    def call(self, *command, parse=True):
        process = subprocess.run([self.scumble, *command, *(self.extra if command[0] != 'export' else [])], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        if process.returncode:
            raise RuntimeError(f'exit status {process.returncode}: {process.stderr.strip()[-300:]}')
        return [json.loads(line) for line in process.stdout.strip().splitlines()] if parse else None

    def attack(self, *command):
        """The result of an attack, with its cases."""
        *lines, result = self.call('attack', *command, '--json', '--quiet')
        return result | attacked.of_lines(lines)

    def path(self, edit):
        """An edit of bench/study/methods (below data) or of this script."""
        return os.path.join(self.folder, edit.removeprefix('claims/')) if edit.startswith('claims/') else os.path.join(self.data, edit)

    def cell(self, name, what):
        began = time.monotonic()
        result = getattr(self, what['kind'])(os.path.join(self.folder, 'runs', name), what)
        return result | {'whole': time.monotonic() - began, 'what': what}

    def erase(self, folder, what):
        result = self.call('erase', what['concept'], *what['options'], '--seed', str(what['seed']), '--json', '--quiet', '--output-dir', folder)[-1]
        with open(os.path.join(folder, 'run.json')) as file:
            details = json.load(file)['details']
        return result | {'rates': details['rates'], 'shown': details.get('shown')}

    def attacked(self, folder, what):
        """An erasure, and what two attacks with their defaults bring back from it."""
        options = [self.captions(folder, option) if option in RETAINED else option for option in what['options']]
        result = self.erase(os.path.join(folder, 'edit'), what | {'options': options})
        for attack in ('unlearndiff', 'concept-inversion'):
            result[attack] = self.attack(attack, '--edit', os.path.join(folder, 'edit'), '--concept', what['concept'], '--seed', str(what['seed']),
                                         '--output-dir', os.path.join(folder, attack))
        return result

    @staticmethod
    def captions(folder, which):
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, 'captions.txt')
        with open(path, 'w') as file:
            file.writelines(f"{'an' if name[0] in 'aeiou' else 'a'} {name} in {style} style\n" for name in RETAINED[which] for style in STYLES)
        return path

    def word(self, folder, what):
        """Draws with a word that bench/study/attacks has learned, in prompts it was not learned on; and those prompts without it."""
        learned = os.path.join(self.data, 'attacks', 'runs', f"concept-inversion-{what['subject']}-church-{what['seed']}")
        edit = os.path.join(self.data, 'methods', 'runs', f"{what['subject']}-church-0")
        if not os.path.isdir(edit):
            edit = os.path.join(self.data, 'attacks', 'edits', f"{what['subject']}-church")
        os.makedirs(folder, exist_ok=True)
        prompts = os.path.join(folder, 'prompts.csv')
        with open(prompts, 'w') as file:
            file.write('case_number,prompt,evaluation_seed\n' + ''.join(f'{n},{prompt},{7000 + n}\n' for n, prompt in enumerate(UNTRAINED)))
        return self.attack('concept-inversion', '--edit', edit, '--concept', 'church', '--transfer', learned, '--prompts', prompts,
                           '--seed', '0', '--output-dir', os.path.join(folder, 'attack'))

    def rows(self, folder, *command):
        self.call('evaluate', *command, '--output-dir', folder, '--quiet', '--overwrite', parse=False)
        with open(os.path.join(folder, 'results.jsonl')) as file:
            return [{key: row[key] for key in ('subject', 'concept', 'metric', 'value', 'n')} for row in map(json.loads, file)]

    def evaluate(self, folder, what):
        command = [part for edit in what['edits'] for part in ('--edit', self.path(edit))]
        return {'rows': self.rows(folder, *command, '--sets', what['sets'])}

    def sequence(self, folder, what):
        """Objects one after the other, each from the model that the last erasure left, and all at once, from prompts of the same kind."""
        prompts = ['--template', '{concept} in {object} style', '--objects', '; '.join(STYLES)]
        named = lambda name: ('an ' if name[0] in 'aeiou' else 'a ') + name
        base = model = os.path.join(ROOT, 'models', 'emoji-sd')
        ends = {}
        for n, objects in enumerate([[o] for o in what['objects']] + [what['objects']]):
            last = n == len(what['objects'])
            edit = os.path.join(folder, f'edit-{n}')
            self.call('erase', '; '.join(map(named, objects)), *prompts, '--method', what['method'], '--model', base if last else model,
                      '--no-judge', '--json', '--quiet', '--overwrite', '--output-dir', edit)
            end = os.path.join(folder, 'joint' if last else f'model-{n}')
            # A folder of a run that was interrupted is written anew.
            self.export(edit, end, base if last else model)
            if not last:
                model = end
            ends['joint' if last else 'sequence'] = end
        rows = self.rows(os.path.join(folder, 'evaluation'), '--model', ends['sequence'], '--model', ends['joint'], '--concept', 'church',
                         '--sets', 'others', '--judge')
        return {'rows': rows, 'ends': ends}

    def export(self, edit, end, model):
        if not os.path.isdir(end):
            self.call('export', edit, '--model', model, '--to', 'diffusers', '--out', end, '--quiet', parse=False)


def run(args):
    """Runs what the claims in args.run need, within the budget; the exit status."""
    os.makedirs(os.path.join(args.folder, 'cells'), exist_ok=True)
    runner, every, status, began = Runner(args), cells(), 0, time.monotonic()
    chosen = lambda name: not args.only or any(fnmatch.fnmatch(name, pattern) for pattern in args.only)
    for claim in args.run:
        if not every.get(claim):
            print(f'{claim}: nothing to run here; the page names the command that its numbers come from', file=sys.stderr)
            continue
        for name, what in every[claim].items():
            found = done(args.folder, name)
            if found is not None and 'error' not in found or not chosen(name):
                continue
            if time.monotonic() - began > 60 * args.budget:
                return 1
            try:
                result = runner.cell(name, what)
            except (RuntimeError, ValueError, OSError, LookupError) as error:
                result, status = {'error': str(error).replace('\n', ' ').replace('|', '/')}, 1
            store(file_of(args.folder, name), result | {'commit': commit()})
            print(f"{claim} {name}: {result.get('error') or '%.0f s' % result['whole']}", flush=True)
    return status


def cell(folder, name):
    """What a finished cell came to; None if it has not run or failed."""
    found = load(file_of(folder, name))
    return found if found and 'error' not in found else None
