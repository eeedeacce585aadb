#!/usr/bin/env bash
# Starts a run on the GPU nodes of a SLURM cluster, one process per GPU. The job requeues itself until the run
# is complete.
#
#   bash scripts/launch/slurm.sh --nodes=2 --gpus=8 --partition=h100 --time=24:00:00 -- \
#       --config=configs/gsm8k.py --workdir=/shared/runs/gsm8k
#
# The checkout and the work directory must be on a file system that all nodes share. Before the time limit, and
# on preemption, the processes get SIGTERM: they save and exit with code 75, and the job requeues itself.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
job=elenchus       # name of the job
nodes=1            # number of machines
gpus=8             # GPUs per machine
cpus=8             # CPU cores per process
partition=         # empty: the cluster's default
account=           # empty: your default account
time=24:00:00      # time limit of one start of the job
notice=180         # SIGTERM is sent this many seconds before the limit
log=slurm-%j.log   # log file of all processes
## end
parse_arguments "${BASH_SOURCE[0]}" "$@"

((${#RUN_ARGUMENTS[@]})) || fail 'the arguments of scripts.run are required after --'
[[ -z ${ACTIONS[*]:-} ]] || fail "unexpected argument ${ACTIONS[0]}"

# Prints the job script: it makes the environment once, runs the processes, and requeues itself if they exit
# with code 75 (stopped by SIGTERM, checkpoint saved).
print_job_script() {
    cat <<JOB
#!/usr/bin/env bash
cd $(quote_words "$ROOT") && bash scripts/launch/worker.sh cuda13 || exit 1
code=0
srun --kill-on-bad-exit=1 bash scripts/launch/worker.sh $(quote_words cuda13 "${RUN_ARGUMENTS[@]}") || code=\$?
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
    printf '%s<<JOB\n%s\nJOB\n' "$(quote_words "${command[@]}")" "$(print_job_script)"
else
    print_job_script | "${command[@]}"
fi
