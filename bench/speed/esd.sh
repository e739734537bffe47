#!/usr/bin/env bash
# scumble's ESD against the published procedure in PyTorch: one after the other, on this machine, with the same threads and setting.
#
#   bench/speed/esd.sh                                         church, esd-x, 200 iterations, lr 5e-5, 1 thread
#   THREADS=2 ITERATIONS=50 JUDGE=0 bench/speed/esd.sh         shorter, without judging
#
# Environment: SCUMBLE (target/release/scumble), PYTHON (python3), CONCEPT, ITERATIONS, LR, NEGATIVE_GUIDANCE, TRAIN_METHOD, SEED,
# THREADS, JUDGE (1), SCUMBLE_FLAGS (added to our command), OUT (a new temporary folder).
# Both runs are timed from the outside, from process start to end, neither of them judging; then bench/parity/judge.py judges both files with
# the same pictures. The last line of stdout is one JSON object. Let nothing else run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../.."

scumble=${SCUMBLE:-target/release/scumble} python=${PYTHON:-python3} concept=${CONCEPT:-church}
iterations=${ITERATIONS:-200} lr=${LR:-5e-5} negative=${NEGATIVE_GUIDANCE:-2} method=${TRAIN_METHOD:-esd-x}
seed=${SEED:-0} threads=${THREADS:-1} out=${OUT:-$(mktemp -d)}
export OMP_NUM_THREADS=$threads RAYON_NUM_THREADS=$threads PYTHONWARNINGS=ignore TRANSFORMERS_VERBOSITY=error
mkdir -p "$out"

timed() { # NAME COMMAND...: stdout to $out/NAME.json, seconds to $out/NAME.seconds
  local name=$1 began; shift
  echo "$name: $*" >&2
  began=$(date +%s.%N)
  "$@" > "$out/$name.json"
  echo "$began $(date +%s.%N)" | awk '{ printf "%.3f\n", $2 - $1 }' > "$out/$name.seconds"
}

setting=(--train-method "$method" --iterations "$iterations" --lr "$lr" --negative-guidance "$negative" --seed "$seed" --threads "$threads")
# shellcheck disable=SC2086
timed ours "$scumble" erase "$concept" --json --quiet --no-judge --method esd --output-dir "$out/ours" "${setting[@]}" ${SCUMBLE_FLAGS:-}
timed pytorch "$python" bench/speed/esd.py --concept "$concept" --out "$out/pytorch" "${setting[@]}"

if [ "${JUDGE:-1}" = 1 ]; then
  "$scumble" export "$out/ours" --to partial --quiet --output-dir "$out/ours-partial"
  partial=$out/ours-partial
  [ -d "$partial" ] && partial=$(find "$partial" -name '*.safetensors' -print -quit)
  theirs=$(find "$out/pytorch" -name '*.safetensors' -print -quit)
  timed judged-base "$python" bench/parity/judge.py --concept "$concept" --threads "$threads"
  timed judged-ours "$python" bench/parity/judge.py --concept "$concept" --threads "$threads" --edit "$partial"
  timed judged-pytorch "$python" bench/parity/judge.py --concept "$concept" --threads "$threads" --edit "$theirs"
fi

"$python" - "$out" <<'PYTHON'
import json
import os
import sys

out = sys.argv[1]


def read(name, json_lines=True):
    path = os.path.join(out, name + ('.json' if json_lines else '.seconds'))
    if not os.path.exists(path):
        return None
    text = open(path).read()
    return json.loads(text) if json_lines else float(text)


ours, theirs = read('ours'), read('pytorch')
whole = {'ours': read('ours', False), 'pytorch': read('pytorch', False)}
erasing = {'ours': ours['seconds'], 'pytorch': theirs['erase_seconds']}
result = {'whole_run_seconds': whole, 'whole_run_ratio': round(whole['pytorch'] / whole['ours'], 2),
          'erase_seconds': erasing, 'erase_ratio': round(erasing['pytorch'] / erasing['ours'], 2), 'iterations': theirs['iterations'],
          'rates': {who: (read(f'judged-{who}') or {}).get('rates') for who in ('base', 'ours', 'pytorch')}, 'folder': out}
print(f"whole run: scumble {whole['ours']:.1f} s, PyTorch {whole['pytorch']:.1f} s: {result['whole_run_ratio']} times", file=sys.stderr)
print(f"erasing:   scumble {erasing['ours']:.1f} s, PyTorch {erasing['pytorch']:.1f} s: {result['erase_ratio']} times", file=sys.stderr)
for who, rates in result['rates'].items():
    if rates:
        print(f"{who:8} target {rates['target']:.3f} {rates['target_interval']}, others {rates['others']:.3f} {rates['others_interval']}",
              file=sys.stderr)
print(json.dumps(result))
PYTHON
