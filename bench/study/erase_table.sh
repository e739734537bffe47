#!/usr/bin/env bash
# The table of erasures in README.md: every setting with three seeds, judged as `scumble erase` judges.
#
#   bench/study/erase_table.sh [FOLDER]
#
# Cells that are done are not run again, so it can be stopped and started at any time. One line of JSON for each cell.
set -euo pipefail
cd "$(dirname "$0")/../.."
scumble=${SCUMBLE:-target/release/scumble}
folder=${1:-scumble-out/table}
mkdir -p "$folder"

cell() {
  local name=$1
  shift
  printf '%s\t' "$name"
  "$scumble" erase "$@" --json --quiet --output-dir "$folder/$name"
}

for seed in 0 1 2; do
  cell "church-esd-x-$seed" church --seed "$seed"
  cell "ink-esd-x-$seed" "ink style" --seed "$seed"
  cell "church-esd-u-$seed" church --train-method esd-u --seed "$seed"
done
