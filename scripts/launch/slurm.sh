#!/usr/bin/env bash
# Starts a run on the GPU nodes of a SLURM cluster, one process per GPU. The job requeues itself until the run
# is complete.
#
#   bash scripts/launch/slurm.sh --nodes=2 --gpus=8 --partition=h100 --time=24:00:00 -- \
#       --config=configs/gsm8k.py --workdir=/shared/runs/gsm8k
#   bash scripts/launch/slurm.sh status --workdir=/shared/runs/gsm8k
#   bash scripts/launch/slurm.sh stop --id=1234
#
# submit   submits the job; what happens without an action
# status   prints the jobs of this name, waiting, running and ended, and what the run in --workdir says of itself
# logs     prints the last lines of the log of the job --id
# stacks   has all processes of the job --id write where they are to its log; they go on
# stop     ends the job --id: it saves, and is not queued again
#
# The checkout and the work directory must be on a file system that all nodes share. Before the time limit, and
# on preemption, the processes get SIGTERM: they save and exit with code 75, and the job requeues itself. It does
# so too if processes were killed (137, 143) or the limit came first; --requeues limits all that together. Any
# other exit code ends the job, and so does `scancel`.
LIST_FLAGS=sbatch
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
job=elenchus       # name of the job
nodes=1            # number of machines
gpus=8             # GPUs, and processes, per machine
cpus=8             # CPU cores per process
accelerator=cuda13  # packages of JAX: cuda13 (driver from r580 on), cuda12 (older drivers), or cpu
partition=         # empty: the cluster's default
account=           # empty: your default account
time=24:00:00      # time limit of one start of the job
notice=180         # SIGTERM is sent this many seconds before the limit
requeues=20        # the job is queued again at most so often
max_hours=         # hours of all starts together, after which it is not queued again; empty: only --time and --requeues
label=yes          # yes: each line of the log begins with the number of its process
log=slurm-%j.log   # log file of all processes
sbatch=            # any option of sbatch, such as --sbatch=--qos=high; may be repeated
id=                # number of the job: stop, logs, stacks
again=no           # yes: submits a job though one with its work directory is pending or running
workdir=           # work directory of the run: status
lines=50           # logs: number of lines
## end
parse_arguments "${BASH_SOURCE[0]}" "$@"
require_one_of accelerator cuda13 cuda12 cpu
require_one_of label yes no
require_one_of again yes no
require_positive nodes gpus cpus
require_number notice requeues lines
[[ -z $max_hours || $max_hours =~ ^[0-9]{1,6}(\.[0-9]{1,9})?$ && $max_hours =~ [1-9] ]] ||
    fail "--max_hours=$max_hours must be a number of hours above 0; nearest: 0.1"
# sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours and so on.
[[ $time =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ && $time =~ [1-9] || ${time,,} =~ ^(unlimited|infinite)$ ]] ||
    fail "--time=$time must be a time of sbatch, such as 90, 2:00:00 or 1-12; default: 24:00:00"

# Prints the job script: it makes the environment once, runs the processes, and requeues itself. srun exits with
# the highest code of all processes, 128 + N for one that signal N ended (srun(1), RETURN VALUE). With
# --kill-on-bad-exit it ends the others by SIGTERM, then SIGKILL after KillWait: 143 and 137 are then the codes
# of a run that was saved.
print_job_script() {
    local worker=(bash scripts/launch/worker.sh "$accelerator") limit=''
    if [[ -n $max_hours ]]; then limit="$(awk "BEGIN { printf \"%d\", $max_hours * 3600 }")"; fi
    # Since 22.05 srun does not inherit --cpus-per-task of sbatch: every process would have one CPU.
    local srun="srun --cpus-per-task=$cpus --kill-on-bad-exit=1"
    if [[ $label == yes ]]; then srun+=' --label'; fi
    cat <<JOB
#!/usr/bin/env bash
cd $(quote_words "$ROOT") && $(quote_words "${worker[@]}") || exit 1
restarts=\${SLURM_RESTART_COUNT:-0}
export ELENCHUS_CODES="\$PWD/.cache/slurm/\$SLURM_JOB_ID-\$restarts"
rm -rf "\$ELENCHUS_CODES" && mkdir -p "\$ELENCHUS_CODES" || exit 1

# Seconds of all starts of this job; the file is written once a minute, because a node may fail.
used_file=.cache/slurm/used-\$SLURM_JOB_ID
used_before=\$(cat "\$used_file" 2>/dev/null || echo 0)
count_used() { echo \$((used_before + SECONDS)) >"\$used_file"; }
is_spent() { [[ -n "$limit" ]] && ((used_before + SECONDS >= ${limit:-0})); }

say() { echo "[slurm] \$(date -u +%FT%TZ) job \$SLURM_JOB_ID, start \$((restarts + 1)): \$*"; }

# Slurm 22.05 and newer give the end; squeue prints 0:00 or INVALID for what is left of a limit that has passed.
# In a trap, \`return\` alone gives the status of the command before the trap, so it has a number here.
is_over() {
    if [[ -n \${SLURM_JOB_END_TIME:-} ]]; then ((\$(date +%s) + 1 >= SLURM_JOB_END_TIME)) && return 0; fi
    [[ "\$(squeue --noheader --jobs="\$SLURM_JOB_ID" --format=%L 2>/dev/null)" =~ ^[[:space:]]*(0:00|INVALID) ]]
}

# scancel ends the processes by SIGTERM, so with 75: only the job's state tells it from a preemption.
is_cancelled() {
    [[ -e .cache/slurm/stop-\$SLURM_JOB_ID ]] && return 0
    local state
    state="\$(squeue --noheader --jobs="\$SLURM_JOB_ID" --format=%T 2>/dev/null)" || return 1
    [[ \$state == CANCELLED* || \$state == COMPLETING ]] && ! is_over
}

requeue() {
    if is_cancelled; then say "exit code \$1; stopped by the user"; return; fi
    if is_spent; then say "exit code \$1; not queued again: --max_hours=$max_hours"; return; fi
    if ((restarts >= $requeues)); then say "exit code \$1; not queued again: --requeues=$requeues"; return; fi
    say "exit code \$1; queued again"
    local try
    for try in 1 2 3; do
        if scontrol requeue "\$SLURM_JOB_ID"; then return; fi
        sleep \$((try * 5))
    done
    say 'error: scontrol requeue failed three times; submit the same command again to continue'
}

# At the time limit the steps and this script get SIGTERM, and SIGKILL after KillWait, which is 30 s by default.
at_term() {
    interrupted=yes
    say SIGTERM
    if is_over; then
        for _ in 1 2 3 4 5; do
            if ! kill -0 "\$step" 2>/dev/null; then break; fi
            sleep 1
        done
        requeue 143
        exit 143
    fi
}
trap at_term TERM

# At the budget the processes get SIGTERM, as before the time limit, and two minutes later SIGKILL.
watch_budget() {
    local end=\$((${limit:-0} - used_before)) sent=no
    while true; do
        count_used
        if [[ -n "$limit" ]] && ((SECONDS >= end)); then
            if [[ \$sent == no ]]; then
                say 'the budget is spent'
                # After the notice before the limit they save already; a second signal would end them at once.
                if ((\${SLURM_JOB_END_TIME:-9999999999} - \$(date +%s) > $notice)); then
                    scancel --signal=TERM "\$SLURM_JOB_ID"
                fi
                sent=yes
            elif ((SECONDS >= end + ${ELENCHUS_GRACE:-120})); then
                scancel --signal=KILL "\$SLURM_JOB_ID"
            fi
            sleep 1
        elif [[ -n "$limit" ]] && ((end - SECONDS < 60)); then
            sleep \$((end - SECONDS))
        else
            sleep 60
        fi
    done
}
watch_budget &
watcher=\$!

$srun $(quote_words "${worker[@]}" "${RUN_ARGUMENTS[@]}") &
step=\$!
while true; do
    # A signal to this script ends \`wait\` too.
    interrupted=no code=0
    wait "\$step" || code=\$?
    if [[ \$interrupted == no ]] && ((code >= 0)); then break; fi
done
trap - TERM
# The first process that ends badly has the others killed: the highest code, then 143 or 137, hides the first.
codes=" \$(cat "\$ELENCHUS_CODES"/* 2>/dev/null | sort -un | tr '\n' ' ')"
case \$codes in
    *' 2 '*) code=2 ;;
    *' 75 '*) code=75 ;;
    *) for one in \$codes; do case \$one in 0 | 137 | 143) ;; *) code=\$one ;; esac done ;;
esac
rm -rf "\$ELENCHUS_CODES"
kill "\$watcher" 2>/dev/null
count_used
if is_spent && ((code != 0)); then code=124; fi
case \$code in
    0) rm -f "\$used_file" ;;
    124) say "exit code 124; not queued again: --max_hours=$max_hours are over" ;;
    75 | 137 | 143) requeue "\$code" ;;
    *) say "exit code \$code; not queued again" ;;
esac
exit "\$code"
JOB
}

# Prints the work directory among the arguments of the run, by its one name; nothing without one.
print_workdir() {
    local i word value=''
    for ((i = 0; i < ${#RUN_ARGUMENTS[@]}; i++)); do
        word=${RUN_ARGUMENTS[i]}
        case $word in
            --workdir=* | -workdir=*) value=${word#*=} ;;
            --workdir | -workdir) value=${RUN_ARGUMENTS[i + 1]:-} ;;
        esac
    done
    if [[ -n $value && $value != gs://* ]]; then value=$(cd "$ROOT" && realpath -m -- "$value"); fi
    while [[ $value == ?*/ ]]; do value=${value%/}; done
    printf '%s' "$value"
}

# check_alone WORKDIR FILE: fails while a job that was submitted for the work directory has not ended: the one in FILE, or
# any of this user's, also from other checkouts and machines, whose comment names it.
check_alone() {
    local job_before='' state='' comment
    while read -r job_before state comment; do
        if [[ $comment == "elenchus $1" ]]; then refuse_beside "$1" "$job_before" "$state"; fi
    done < <(squeue --me --noheader --format='%i %T %k' 2>/dev/null)
    job_before=''
    if [[ -f $2 ]]; then job_before=$(<"$2"); fi
    [[ $job_before =~ ^[0-9]+$ ]] || return 0
    if ! state=$(squeue --noheader --jobs="$job_before" --format=%T 2>"$2.error"); then
        if grep -qi 'invalid job id' "$2.error"; then return 0; fi # ended long ago
        fail "nobody knows whether job $job_before has ended, which has the work directory $1:" \
            "$(tail -n 1 "$2.error"); --again=yes submits all the same"
    fi
    refuse_beside "$1" "$job_before" "$state"
}

# refuse_beside WORKDIR JOB STATE: fails unless the state is that of a job that has ended.
refuse_beside() {
    case $3 in
        '' | COMPLETED* | FAILED* | CANCELLED* | TIMEOUT* | NODE_FAIL* | OUT_OF_ME* | BOOT_FAIL* | DEADLINE* | REVOKED*) ;;
        *) fail "job $2 is $3 with the work directory $1: wait for it, \`stop --id=$2\`, or --again=yes" ;;
    esac
}

submit() {
    ((${#RUN_ARGUMENTS[@]})) || fail 'the arguments of scripts.run are required after --'
    local place record answer
    place=$(print_workdir)
    record="$ROOT/.cache/slurm/run-$(printf '%s' "$place" | cksum | tr ' ' '-')"
    local option command=(
        sbatch --job-name="$job" --nodes="$nodes" --ntasks-per-node="$gpus" --cpus-per-task="$cpus"
        --time="$time" --signal="TERM@$notice" --requeue --open-mode=append --output="$log"
        ${partition:+--partition="$partition"} ${account:+--account="$account"} ${place:+--comment="elenchus $place"}
    )
    if [[ $accelerator != cpu ]]; then command+=(--gpus-per-node="$gpus"); fi
    while IFS= read -r option; do
        [[ -z $option || $option == -* ]] || fail "--sbatch=$option must be an option of sbatch, such as --sbatch=--qos=high"
        if [[ -n $option ]]; then command+=("$option"); fi
    done <<<"$sbatch"
    # Slurm makes no folder: the job would end at once, and leave no log that says why.
    local folder=.
    if [[ $log == */* ]]; then folder=${log%/*}; fi
    if [[ $DRY_RUN == yes ]]; then
        printf '%s<<JOB\n%s\nJOB\n' "$(quote_words "${command[@]}")" "$(print_job_script)"
    else
        if [[ $folder != *%* ]]; then mkdir -p -- "${folder:-/}" 2>/dev/null || fail "--log=$log: no folder can be made there"; fi
        mkdir -p "${record%/*}" || exit 1
        exec 8>"$record.lock"
        # Two submissions at once: the second one sees the job of the first.
        if command -v flock >/dev/null; then flock 8; fi
        if [[ -n $place && $again == no ]]; then check_alone "$place" "$record"; fi
        answer=$(print_job_script | "${command[@]}" 8>&-) || exit $?
        printf '%s\n' "$answer"
        # Sites put words of theirs before the answer; --parsable has NUMBER or NUMBER;CLUSTER.
        if [[ -n $place && ($answer =~ 'Submitted batch job '([0-9]+) || ${answer##*$'\n'} =~ ^([0-9]+)($|\;)) ]]; then
            echo "${BASH_REMATCH[1]}" >"$record"
        fi
    fi
}

status() {
    run squeue --name="$job" --me --format='%i %T %M of %l, %r, nodes %N' || true # the run below says more
    # Without accounting there is no sacct.
    if [[ $DRY_RUN == yes ]] || command -v sacct >/dev/null; then
        run sacct --name="$job" --allocations --format=JobID,State,ExitCode,Elapsed || true
    fi
    if [[ -n $workdir ]]; then run bash -c 'source "$0/python.sh" && launch run "$1"' "$HERE" "$workdir"; fi
}

stacks() {
    require_flags id
    require_number id
    run scancel --signal=QUIT "$id" # to the steps, not to the job script
    run sleep 2
    logs
}

logs() {
    require_flags id
    local file=$log
    file=${file//%[jA]/$id}
    run tail -n "$lines" -- "${file//%x/$job}"
}

stop() {
    require_flags id
    require_number id
    run mkdir -p "$ROOT/.cache/slurm"
    run touch "$ROOT/.cache/slurm/stop-$id"
    # To the steps only: they save and leave with 75, and the job script sees the mark and ends.
    run scancel --signal=TERM "$id" || run scancel "$id"
}

if ((${#ACTIONS[@]} == 0)); then ACTIONS=(submit); fi
run_actions submit status logs stacks stop
