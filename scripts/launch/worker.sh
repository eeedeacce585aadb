#!/usr/bin/env bash
# Runs this machine's process of a run on several machines; the launchers call it there:
#
#   bash scripts/launch/worker.sh tpu --distributed --config=configs/gsm8k.py --workdir=gs://bucket/run
#
# The first argument is JAX's accelerator: tpu, cuda12, cuda13, or cpu for none; the others are passed to scripts.run.
# Without others it only makes the environment. `--encoded=BASE64` instead of others has them each ended by a NUL
# byte: no shell, YAML or Kubernetes on the way can change it.
#
# ELENCHUS_SUPERVISE=RETRIES starts the process again after a crash, at most so often, and ends with a code that says
# what the launcher is to do (scripts/launch/supervise.py). ELENCHUS_CODES=FOLDER leaves the process's own exit code
# there. Without both the process replaces this shell.
# Requests for stacks (stacks.sh, `slurm.sh stacks`) go to a whole step: they are for scripts.run, and end nothing.
trap '' QUIT USR1
accelerator=${1:?the accelerator: tpu, cuda12, cuda13 or cpu}
shift
case $accelerator in
    cpu) LOCKS=() ;;
    tpu | cuda12 | cuda13) LOCKS=("$accelerator" gcs) ;;
    *)
        echo "error: unknown accelerator $accelerator; use tpu, cuda12, cuda13 or cpu" >&2
        exit 2
        ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

arguments=("$@")
if [[ ${1:-} == --encoded=* ]]; then
    mapfile -d '' -t arguments < <(base64 --decode <<<"${1#--encoded=}")
    (($# == 1 && ${#arguments[@]})) || { say 'error: --encoded must be the only argument, and not empty' && exit 2; }
fi

# Without arguments there is the environment, and nothing to run.
if ((${#arguments[@]} == 0)); then exit; fi

# XPK tells processes on GPU nodes apart by variables that JAX does not read (xpk, core/docker_resources.py).
if [[ -n ${NNODES:-} && -n ${NODE_RANK:-} && -n ${JAX_COORDINATOR_ADDRESS:-} ]]; then
    address=$JAX_COORDINATOR_ADDRESS
    if [[ $address != *:* ]]; then address+=":${JAX_COORDINATOR_PORT:-6002}"; fi
    others=()
    for argument in "${arguments[@]}"; do
        if [[ $argument != --distributed ]]; then others+=("$argument"); fi
    done
    arguments=("${others[@]}" --coordinator="$address" --num_processes="$NNODES" --process_id="$NODE_RANK")
    unset JAX_COORDINATOR_ADDRESS
fi

if [[ -n ${ELENCHUS_SUPERVISE:-} ]]; then
    exec "$PYTHON" -m scripts.launch.supervise "$ELENCHUS_SUPERVISE" "$PYTHON" -m scripts.run "${arguments[@]}"
fi
if [[ -n ${ELENCHUS_CODES:-} ]]; then
    # SLURM signals all processes of a task, so this shell passes nothing on: a second SIGTERM ends the run at once.
    trap 'interrupted=yes' TERM INT HUP
    "$PYTHON" -m scripts.run "${arguments[@]}" &
    child=$!
    while true; do
        interrupted=no code=0
        wait "$child" || code=$?
        # Bash says -1 where a signal came before `wait` did; the next one has the code, or 127 after it was lost.
        if [[ $interrupted == no ]] && ((code >= 0)); then break; fi
    done
    if ((code == 127)); then code=143; fi
    echo "$code" >"$ELENCHUS_CODES/${SLURM_PROCID:-0}"
    exit "$code"
fi
exec "$PYTHON" -m scripts.run "${arguments[@]}"
