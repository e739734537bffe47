#!/bin/bash
# An evaluation handed to a real Slurm of two nodes: an array of 40 tasks, one node killed in the middle, one task
# cancelled, one task told that its time is over. Everything is done in the end, counted once, and what comes out is what a
# single run says.
#   bench/slurm/proof.sh SCUMBLE [FOLDER]
# Needs root, and Debian's slurm-wlm and munge.
set -euo pipefail
scumble=$(realpath "$1")
folder=$(realpath -m "${2:-/tmp/scumble-slurm}")
here=$(dirname "$(realpath "$0")")

if [ -z "${SLURM_CONF:-}" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    exec "$here/cluster.sh" "$folder/cluster" "$0" "$scumble" "$folder"
fi

cd "$folder"
export SCUMBLE_CACHE=$folder/cache RAYON_NUM_THREADS=1
words=(evaluate --method uce,negative --concept "church; dog; ink style" --sets "target;others" --steps 4 --seed 3)
"$scumble" "${words[@]}" --submit slurm:time=00:30:00 --shards 40 --output-dir shared

tell() { echo "$(date +%T) $*" >&2; }
count() { "$scumble" status shared --json | python3 -c "import json,sys; print(json.load(sys.stdin)['$1'])" || true; }
until [ "$(count done)" -ge 10 ]; do sleep 1; done

# One node dies, with all that runs on it.
tell "$(count done) done; a node dies"
dead=$(cat cluster/node-n2.pid)
kill -9 $(pgrep -P "$dead" | xargs -r -n1 pgrep -P) $(pgrep -P "$dead") "$dead" 2>/dev/null || true
pkill -9 -f "slurmstepd.*n2" || true
array=$(python3 -c "import json; print(next(j['job'] for j in json.load(open('shared/slurm/submission.json'))['jobs'] if j['step']=='draw'))")
# One task is cancelled before it begins.
tell "task 38 is cancelled"
scancel "${array}_38"
sleep 12
scontrol update nodename=n2 state=down reason=dead || true
tell "the node comes back"
slurmd -N n2 -f "$SLURM_CONF"
# One task hears that its time is over; it stores what it has and is queued again.
again() {
    for id in $(squeue --noheader --array --states=running --format=%i | grep "^${array}_"); do
        scancel --batch --signal=USR1 "$id" 2>/dev/null && echo "$id" && return
    done
    return 1
}
told=
for _ in $(seq 300); do
    told=$(again) && break
    sleep 0.1
done
[ -n "$told" ] || { tell "no task was at work when one was to be told"; exit 1; }
tell "$told hears that its time is over"

"$scumble" status shared --follow > followed.txt || true
requeued=$(scontrol show job "$told" | grep -o 'Restarts=[0-9]*')
tell "$told: $requeued"
[ "$requeued" != Restarts=0 ]
tail -3 followed.txt >&2
[ -f shared/run.json ] && grep -q '"finished": *true' shared/run.json

# The same by itself, from nothing.
mkdir -p alone-runs
(cd alone-runs; SCUMBLE_CACHE=$folder/other-cache RAYON_NUM_THREADS=2 "$scumble" "${words[@]}" --output-dir ../alone --quiet > /dev/null)
python3 - <<'PY'
import json
def rows(folder):
    kept = []
    for line in open(f'{folder}/results.jsonl'):
        row = json.loads(line)
        if row['metric'] in ('seconds', 'memory'):
            continue
        kept.append({k: v for k, v in row.items() if k not in ('seconds', 'edit', 'cost')})
    return sorted(kept, key=lambda row: json.dumps(row, sort_keys=True))
shared, alone = rows('shared'), rows('alone')
apart = [(a, b) for a, b in zip(shared, alone) if json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True)]
assert len(shared) == len(alone), (len(shared), len(alone))
for a, b in apart[:3]:
    print('shared', a)
    print('alone ', b)
assert not apart, f'{len(apart)} of {len(shared)} rows differ'
print(f'{len(shared)} rows, each the same as of a single run')
PY
"$scumble" status shared | tail -1
