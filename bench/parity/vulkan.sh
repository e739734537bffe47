#!/usr/bin/env bash
# Whether scumble computes on a GPU what it computes on the CPU: networks, pictures, an erasure and its judging.
#
#   bench/parity/vulkan.sh                                   Vulkan; a software device (Mesa's lavapipe) will do
#   DEVICE=cuda:0 bench/parity/vulkan.sh                     another device, another feature
#
# Environment: DEVICE (vulkan), PROFILE (dev; release for times that mean something), CARGO_TARGET_DIR (target/vulkan: features change Burn,
# and a folder of its own spares the other build), SCUMBLE (a binary built before, which is then taken as it is), TESTS (1: the ignored tests
# on the device too), JUDGE (0; 1 judges an erasure on both, which takes a software device half an hour), ITERATIONS (5), OUT (a new
# temporary folder), PYTHON (python3; the standard library is enough).
# A table goes to stdout; exit 1 if anything disagrees.
set -euo pipefail
cd "$(dirname "$0")/../.."

device=${DEVICE:-vulkan} profile=${PROFILE:-dev} out=${OUT:-$(mktemp -d)} python=${PYTHON:-python3} iterations=${ITERATIONS:-5}
kind=${device%%:*}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target/vulkan} SCUMBLE_NO_PROGRESS=1
mkdir -p "$out"

if [ -z "${SCUMBLE:-}" ]; then
  cargo build --workspace --locked --features "$kind" --profile "$profile" >&2
  [ "$profile" = dev ] && folder=debug || folder=$profile
  SCUMBLE=$CARGO_TARGET_DIR/$folder/scumble
fi
if [ "${TESTS:-1}" = 1 ]; then
  cargo test --workspace --locked --features "$kind" --profile "$([ "$profile" = dev ] && echo test || echo "$profile")" --test device -- --ignored >&2
fi

run() { # WHERE NAME COMMAND...: its own cache, stdout to NAME.json, seconds to NAME.seconds; the exit status is the table's business
  local where=$1 name=$1-$2 began; shift 2
  began=$(date +%s.%N)
  SCUMBLE_CACHE="$out/cache-$where" "$SCUMBLE" "$@" --json > "$out/$name.json" 2> "$out/$name.log" || echo "$? $name" >> "$out/failed"
  echo "$began $(date +%s.%N)" | awk '{ printf "%.1f\n", $2 - $1 }' > "$out/$name.seconds"
}

rm -f "$out/failed"
for where in cpu "$kind"; do
  [ "$where" = cpu ] && on=cpu || on=$device
  run "$where" verify verify models/emoji-sd --reference models/emoji-sd.reference.safetensors --device "$on"
  for sampler in ddim euler-a dpm++2m; do
    run "$where" "generate-$sampler" generate "a church in noto style" "a cat and a dog" --seed 7 --n 2 --sampler "$sampler" --steps 20 \
      --device "$on" --output-dir "$out/$where-$sampler" --overwrite
  done
  run "$where" erase erase church --seed 0 --iterations "$iterations" --set trajectories=1 --set sampling_steps=20 --batch 4 --no-judge --device "$on" \
    --output-dir "$out/$where-erase" --overwrite
  run "$where" edited generate "a church in noto style" --seed 7 --n 2 --edit "$out/cpu-erase" --device "$on" \
    --output-dir "$out/$where-edited" --overwrite
  if [ "${JUDGE:-0}" = 1 ]; then
    run "$where" judged erase church --seed 0 --iterations "$iterations" --set trajectories=2 --device "$on" \
      --output-dir "$out/$where-judged" --overwrite
  fi
  run "$where" lora export "$out/$where-erase" --to lora --rank 4 --allow-partial --output-dir "$out/$where-lora" --overwrite
done

"$python" - "$out" "$kind" "$device" <<'PYTHON'
import glob
import json
import math
import os
import struct
import sys
import zlib

out, kind, device = sys.argv[1:]
rows, wrong = [], []


def row(what, found, bound, fine):
    rows.append((what, found, bound, 'ok' if fine else 'NO'))
    if not fine:
        wrong.append(what)


def seconds(name):
    return f"{open(os.path.join(out, f'cpu-{name}.seconds')).read().strip()} s, {open(os.path.join(out, f'{kind}-{name}.seconds')).read().strip()} s"


def result(where, name):
    with open(os.path.join(out, f'{where}-{name}.json')) as f:
        text = f.read().strip()
    return json.loads(text) if text else None


def png(path):
    """The bytes of an eight-bit RGB picture."""
    data = open(path, 'rb').read()
    position, packed = 8, b''
    while position < len(data):
        length, name = struct.unpack('>I4s', data[position:position + 8])
        body = data[position + 8:position + 8 + length]
        if name == b'IHDR':
            width, height, depth, colour = struct.unpack('>IIBB', body[:10])
            assert (depth, colour) == (8, 2), path
        if name == b'IDAT':
            packed += body
        position += 12 + length
    raw, stride, lines = zlib.decompress(packed), 3 * width, []
    before = bytearray(stride)
    for y in range(height):
        filtered, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a, b, c = (line[i - 3] if i >= 3 else 0), before[i], (before[i - 3] if i >= 3 else 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth)[filtered]) & 255
        lines.append(bytes(line))
        before = line
    return b''.join(lines)


def tensors(path):
    data = open(path, 'rb').read()
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + size])
    found = {}
    for name, about in header.items():
        if name == '__metadata__' or about['dtype'] not in ('F16', 'F32'):
            continue
        a, b = about['data_offsets']
        letter, width = ('e', 2) if about['dtype'] == 'F16' else ('f', 4)
        found[name] = struct.unpack(f'<{(b - a) // width}{letter}', data[8 + size + a:8 + size + b])
    return found


def same_pictures(name):
    ours = sorted(glob.glob(os.path.join(out, f'cpu-{name}', '**', '*.png'), recursive=True))
    theirs = sorted(glob.glob(os.path.join(out, f'{kind}-{name}', '**', '*.png'), recursive=True))
    if not ours or len(ours) != len(theirs):
        return row(f'pictures, {name}', f'{len(ours)} and {len(theirs)} files', 'as many', False)
    pairs = [(png(a), png(b)) for a, b in zip(ours, theirs)]
    apart = [abs(x - y) for a, b in pairs for x, y in zip(a, b)]
    row(f'pictures, {name}', f'{max(apart)}/255 at most, {sum(d > 0 for d in apart)} of {len(apart)} bytes differ', '2/255', max(apart) <= 2)


if os.path.exists(os.path.join(out, 'failed')):
    for line in open(os.path.join(out, 'failed')):
        row('a command failed', line.strip(), '0', False)

found = result(kind, 'verify')
if found:
    worst = max(found['tensors'], key=lambda t: t['max_rel'] or math.inf)
    row('verify, largest max|a-b| / max|b|', f"{worst['max_rel']:.1e} ({worst['key']})", '1e-4', found['passed'])
for name in ('ddim', 'euler-a', 'dpm++2m', 'edited'):
    same_pictures(name)

ours, theirs = (tensors(os.path.join(out, f'{where}-erase', 'edit.safetensors')) for where in ('cpu', kind))
base = tensors('models/emoji-sd/unet/diffusion_pytorch_model.safetensors')
if ours.keys() == theirs.keys() and ours:
    apart = moved = 0.0
    for name, values in ours.items():
        apart += sum((a - b) ** 2 for a, b in zip(values, theirs[name]))
        moved += sum((a - b) ** 2 for a, b in zip(values, base[name.removeprefix('unet.')]))
    share = math.sqrt(apart / moved)
    row('edit, |difference| / |change|', f'{share:.1e} in {len(ours)} tensors', '0.05', share < 0.05)
else:
    row('edit', f'{len(ours)} and {len(theirs)} tensors', 'the same', False)
a, b = (result(where, 'erase') for where in ('cpu', kind))
if a and b:
    drift = [x['uncond_drift'] for x in (a, b)]
    row('unconditional drift', f'{drift[0]:.5f}, {drift[1]:.5f}', '1 %', abs(drift[0] - drift[1]) < 0.01 * drift[0])
a, b = (result(where, 'lora') for where in ('cpu', kind))
if a and b:
    error = [x['reconstruction_error'] for x in (a, b)]
    row('LoRA, reconstruction error', f'{error[0]:.4f}, {error[1]:.4f}', '0.01', abs(error[0] - error[1]) < 0.01)
if os.path.exists(os.path.join(out, f'{kind}-judged.json')):
    a, b = (result(where, 'judged') for where in ('cpu', kind))
    for when in ('before', 'after'):
        for what in ('target', 'others'):
            if a and b:
                x, y = a[when][what], b[when][what]
                # Three pictures of 48, or of 186: those on the border between two labels.
                bound = 3 / a['n'][what]
                row(f'judged {when}, {what}', f'{x:.4f}, {y:.4f}', f'{bound:.3f}', abs(x - y) <= bound + 1e-9)

print(f"{'cpu against ' + device:<38}{'found':<48}{'bound':<8}")
for what, found, bound, verdict in rows:
    print(f'{what:<38}{found:<48}{bound:<8}{verdict}')
print()
for name in ('verify', 'generate-ddim', 'erase', 'judged'):
    if os.path.exists(os.path.join(out, f'{kind}-{name}.seconds')):
        print(f'{name:<20}cpu, {device}: {seconds(name)}')
if wrong:
    sys.exit(f'{len(wrong)} of {len(rows)} disagree; logs in {out}')
PYTHON
