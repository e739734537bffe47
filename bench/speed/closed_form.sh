#!/usr/bin/env bash
# Whole processes of every closed-form method on a checkpoint of SD 1.4's size, into bench/speed/CLOSED_FORM.md.
#
#   python bench/parity/make_sd14.py FOLDER     once: random weights, 2.1 GB, outside of the repository
#   bench/speed/closed_form.sh FOLDER          RUNS=3 warm runs of each; PYTHON=... adds UCE as published (bench/speed/uce_published.py)
#
# A cold run has an empty cache, so it makes the statistics of the captions that it keeps; a warm one finds them there. The checkpoint
# itself is in the page cache in both. Let nothing else run meanwhile: wall times are what is asked for.
set -euo pipefail
folder=$(realpath "${1:?usage: bench/speed/closed_form.sh FOLDER (made by bench/parity/make_sd14.py)}")
cd "$(dirname "$0")/../.."
runs=${RUNS:-3}
concept=${CONCEPT:-van gogh}
if [ -z "${SCUMBLE:-}" ]; then
  cargo build --release
  SCUMBLE=${CARGO_TARGET_DIR:-target}/release/scumble
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SCUMBLE_CACHE=$work/cache
table=bench/speed/CLOSED_FORM.md

# Runs a command and prints "wall user system peak": seconds and KiB.
measured() {
  /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" > "$work/out" 2> "$work/err" || { cat "$work/err" >&2; return 1; }
  cat "$work/time"
}

erase() {
  measured "$SCUMBLE" erase "$concept" --model "$folder" --method "$1" --no-judge --json --quiet --overwrite --output-dir "$work/run"
}

# The run of median wall time, of several.
median() {
  for _ in $(seq "$runs"); do "$@"; done | sort -n | sed -n "$(((runs + 1) / 2))p"
}

# A run as cells of the table: wall, processor seconds, peak in GiB.
cells() {
  awk '{ printf "%.2f s | %.1f s | %.2f GiB", $1, $2 + $3, $4 / 1048576 }' <<< "$1"
}

declare -A target=([uce]=3 [rece]=3 [trce]=15 [mace]=15 [speed]=15 [oce]=60)
cat "$folder"/*/*.safetensors > /dev/null
lines=()
for method in uce rece trce mace speed oce realera; do
  rm -rf "$SCUMBLE_CACHE"
  cold=$(erase "$method")
  if [ -d "$SCUMBLE_CACHE/tensors" ]; then
    kept=$(cells "$cold" | cut -d'|' -f1,2)
  else
    kept='none |'
  fi
  warm=$(median erase "$method")
  verdict=
  if [ -n "${target[$method]:-}" ]; then
    verdict=$(awk -v t="${target[$method]}" '{ printf "%d s, %s", t, $1 < t ? "met" : "missed" }' <<< "$warm")
  fi
  lines+=("| \`$method\` | $(cells "$warm") | $verdict | $kept |")
  echo "${lines[-1]}"
done
if [ -n "${PYTHON:-}" ]; then
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
  theirs=$(median measured "$PYTHON" bench/speed/uce_published.py "$concept" --model "$folder" --out "$work/theirs.safetensors")
  lines+=("| UCE as published, PyTorch | $(cells "$theirs") | | | |")
  echo "${lines[-1]}"
  inside=$(cat "$work/out")
fi

{
  echo '# Closed-form methods at SD 1.4 width'
  echo
  echo "Written by \`bench/speed/closed_form.sh\` on $(date -u +%Y-%m-%d), $("$SCUMBLE" --version), $(nproc) cores of"
  echo "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), load $(cut -d' ' -f1 /proc/loadavg) at the end."
  echo
  echo "\`scumble erase \"$concept\" --method M --no-judge\`, the whole process, on a folder of random weights made by \`bench/parity/make_sd14.py\`"
  echo "($(du -shL "$folder" | cut -f1), in the page cache): the median of $runs runs by wall time. Processor time is of all cores together. Peak memory is what the"
  echo 'kernel reports, and includes the pages of the mapped checkpoint, all of which are read once to be hashed; they are'
  echo "the page cache's and are given up when memory is short."
  echo
  echo 'A cold run has an empty cache and first makes the statistics of 1000 captions, once for a checkpoint and a list of captions; a method'
  echo 'without such statistics has "none".'
  echo
  echo '| method | wall, warm | processor | peak memory | target | wall, cold | processor, cold |'
  echo '|---|---|---|---|---|---|---|'
  printf '%s\n' "${lines[@]}"
  if [ -n "${inside:-}" ]; then
    echo
    echo "UCE as published is \`bench/speed/uce_published.py\`: 32 inversions in f32, PyTorch with $OMP_NUM_THREADS threads, imports and loading of the"
    echo "text encoder and the U-Net included. Its parts in the last run: \`$inside\`."
  fi
} > "$table"
echo "written: $table" >&2
