#!/bin/bash
# A Slurm cluster of one controller and two nodes on this machine, for the time that a command takes:
#   bench/slurm/cluster.sh FOLDER COMMAND...
# Needs Debian's slurm-wlm and munge, and root. Everything lies in FOLDER; the command finds the cluster by SLURM_CONF,
# and the processes of node k by FOLDER/node-k.pid.
set -euo pipefail
folder=$(realpath -m "$1")
shift
mkdir -p "$folder/state" "$folder/spool-1" "$folder/spool-2" "$folder/munge"
host=$(hostname -s)
cpus=$(nproc)

# Munge proves who one is, by a key that all nodes share.
dd if=/dev/urandom of="$folder/munge/key" bs=1 count=1024 status=none
chmod 700 "$folder/munge"
chmod 600 "$folder/munge/key"
munge=$folder/munge/socket
munged --force --socket="$munge" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

# One CPU for each node: two nodes are two tasks at a time.
cat > "$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthInfo=socket=$munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/node-%n.pid
SlurmdSpoolDir=$folder/spool-%n
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/node-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=10
KillWait=10
MinJobAge=600
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

end() {
    for file in "$folder"/node-*.pid "$folder/slurmctld.pid" "$folder/munge/pid"; do
        [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    done
}
trap end EXIT

mkdir -p "$folder/spool-n1" "$folder/spool-n2"
slurmctld -c -f "$SLURM_CONF"
slurmd -N n1 -f "$SLURM_CONF"
slurmd -N n2 -f "$SLURM_CONF"
for _ in $(seq 60); do
    [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null | paste -sd+ | bc 2>/dev/null || echo 0)" = 2 ] && break
    sleep 0.5
done
sinfo >&2
"$@"
