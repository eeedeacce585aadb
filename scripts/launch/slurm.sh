#!/usr/bin/env bash
# A run on the GPU nodes of a SLURM cluster, one process a GPU; submitted again by itself until it is done.
#
#   bash scripts/launch/slurm.sh --nodes=2 --gpus=8 --partition=h100 --time=24:00:00 -- \
#       --config=configs/gsm8k.py --workdir=/shared/runs/gsm8k
#
# The checkout and the work directory must be on a file system that all nodes see. Before the time is up, and
# on preemption, the processes get SIGTERM: they save, leave with exit code 75, and the job is queued again.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
job=elenchus       # name
nodes=1            # machines
gpus=8             # of a machine
cpus=8             # of a process
partition=         # empty: the cluster's usual one
account=           # empty: yours
time=24:00:00      # limit of one stay in the cluster
notice=180         # seconds before the limit at which SIGTERM is sent
log=slurm-%j.log   # of all processes
## end
parse "${BASH_SOURCE[0]}" "$@"

((${#RUN_ARGUMENTS[@]})) || fail 'give the arguments of scripts.run after --'
[[ -z ${ACTIONS[*]:-} ]] || fail "${ACTIONS[0]} is no flag"

# The job: the environment once, the processes, and the queue again where they were asked to leave.
script() {
    cat <<JOB
#!/usr/bin/env bash
cd $(quoted "$ROOT") && bash scripts/launch/worker.sh cuda13 || exit 1
code=0
srun --kill-on-bad-exit=1 bash scripts/launch/worker.sh $(quoted cuda13 "${RUN_ARGUMENTS[@]}") || code=\$?
if ((code == 75)); then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$code"
JOB
}

command=(
    sbatch --job-name="$job" --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus"
    --cpus-per-task="$cpus" --time="$time" --signal="TERM@$notice" --requeue --open-mode=append
    --output="$log" ${partition:+--partition="$partition"} ${account:+--account="$account"}
)
if [[ $DRY_RUN == yes ]]; then
    printf '%s<<JOB\n%s\nJOB\n' "$(quoted "${command[@]}")" "$(script)"
else
    script | "${command[@]}"
fi
