#!/usr/bin/env bash
# A run on a list of machines that ssh reaches without a password, one process a machine.
#
#   bash scripts/launch/ssh.sh install start --hosts=gpu1,gpu2,gpu3 -- --config=configs/gsm8k.py --workdir=/shared/run
#   bash scripts/launch/ssh.sh stop --hosts=gpu1,gpu2,gpu3
#
# install  copies the sources at HEAD to every machine and unpacks them in --folder
# start    starts all processes and waits; the same command continues a run that was stopped
# stop     sends SIGTERM to the first machine's process: all of them save and leave with exit code 75
#
# The first machine is the coordinator; the others must reach its --port. The work directory must be on a file
# system that all machines see.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
hosts=             # names or user@names, with commas
folder=elenchus    # on the machines
port=8476          # of the coordinator
accelerator=cuda13  # jax's: cuda13, tpu, or cpu
## end
parse "${BASH_SOURCE[0]}" "$@"
need hosts
IFS=, read -r -a HOSTS <<<"$hosts"

install() {
    local archive="${TMPDIR:-/tmp}/elenchus-$$.tar.gz" host
    pack "$archive"
    for host in "${HOSTS[@]}"; do
        run scp "$archive" "$host:elenchus.tar.gz"
        run ssh "$host" "$(unpack "$folder")"
    done
    run rm -f "$archive"
}

start() {
    local i started=() code=0 worst=0
    for i in "${!HOSTS[@]}"; do
        run ssh "${HOSTS[i]}" "echo \$\$ >${folder@Q}/process; $(
            work "$folder" "$accelerator" --coordinator="${HOSTS[0]#*@}:$port" \
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

act install start stop
