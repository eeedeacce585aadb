#!/usr/bin/env bash
# Starts a run on a list of machines that ssh reaches without a password, one process per machine.
#
#   bash scripts/launch/ssh.sh install start --hosts=gpu1,gpu2,gpu3 -- \
#       --config=configs/gsm8k.py --workdir=/shared/run
#   bash scripts/launch/ssh.sh stop --hosts=gpu1,gpu2,gpu3
#
# install  copies the sources at HEAD to every machine and unpacks them in --folder
# start    starts all processes and waits for them; the same command continues a stopped run
# stop     sends SIGTERM to the first machine's process: all processes save and exit with code 75
#
# The first machine is the coordinator; the others must reach its --port. The work directory must be on a file
# system that all machines share.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
hosts=             # machines (NAME or USER@NAME), separated by commas
folder=elenchus    # folder of the sources on the machines
port=8476          # port of the coordinator
accelerator=cuda13  # JAX's accelerator: cuda13, tpu, or cpu
## end
parse_arguments "${BASH_SOURCE[0]}" "$@"
require_flags hosts
IFS=, read -r -a HOSTS <<<"$hosts"

install() {
    local archive="${TMPDIR:-/tmp}/elenchus-$$.tar.gz" host
    pack_sources "$archive"
    for host in "${HOSTS[@]}"; do
        run scp "$archive" "$host:elenchus.tar.gz"
        run ssh "$host" "$(print_unpack_command "$folder")"
    done
    run rm -f "$archive"
}

start() {
    local i started=() code=0 worst=0
    # The process id is stored for `stop`: the worker replaces this shell (exec), so it keeps the id.
    for i in "${!HOSTS[@]}"; do
        run ssh "${HOSTS[i]}" "echo \$\$ >${folder@Q}/process; $(
            print_worker_command "$folder" "$accelerator" --coordinator="${HOSTS[0]#*@}:$port" \
                --num_processes="${#HOSTS[@]}" --process_id="$i"
        )" &
        started+=("$!")
        if [[ $DRY_RUN == yes ]]; then wait "$!"; fi
    done
    [[ $DRY_RUN == yes ]] && return
    for i in "${started[@]}"; do
        code=0
        wait "$i" || code=$?
        if ((code > worst)); then worst=$code; fi
    done
    return "$worst"
}

stop() { run ssh "${HOSTS[0]}" "kill -TERM \$(<${folder@Q}/process)"; }

run_actions install start stop
