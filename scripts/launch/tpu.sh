#!/usr/bin/env bash
# Starts a run on a Cloud TPU slice of one or several hosts, through gcloud.
#
#   bash scripts/launch/tpu.sh create --name=pod --zone=us-central1-a --type=v5litepod-256 --spot=yes
#   bash scripts/launch/tpu.sh install start --name=pod --zone=us-central1-a -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/tpu.sh fetch --workdir=gs://bucket/run --into=runs/pod
#   bash scripts/launch/tpu.sh delete --name=pod --zone=us-central1-a
#
# create   requests the slice as a queued resource
# status   prints the state of the request
# install  copies the sources at HEAD to all hosts
# start    runs scripts.run on all hosts; the same command continues a stopped run
# keep     runs create, install and start, again after every preemption until the run is complete
# fetch    copies summary, report and metrics from the bucket
# delete   releases the slice
#
# The work directory must be in a bucket that all hosts can write to. A preempted host gets SIGTERM; all hosts
# then save and exit.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
name=              # name of the slice and of its queued resource
zone=              # zone of the slice, such as us-central1-a
type=v5litepod-16  # accelerator type
version=v2-alpha-tpuv5-lite  # runtime version for the type
project=           # Google Cloud project; empty: the one of gcloud's configuration
spot=no            # yes: cheaper, but may be preempted
workdir=           # fetch: folder in the bucket
into=runs/fetched  # fetch: local folder
poll=60            # seconds between checks of the queue
## end
parse_arguments "${BASH_SOURCE[0]}" "$@"

TPU=(gcloud compute tpus)
PLACE=(--zone="$zone" ${project:+--project="$project"})

# run_on_all_hosts COMMAND
run_on_all_hosts() {
    require_flags name zone
    run "${TPU[@]}" tpu-vm ssh "$name" "${PLACE[@]}" --worker=all --command="$1"
}

status() {
    require_flags name zone
    run "${TPU[@]}" queued-resources describe "$name" "${PLACE[@]}" --format='value(state.state)'
}

create() {
    require_flags name zone
    local options=()
    if [[ $spot == yes ]]; then options+=(--spot); fi
    run "${TPU[@]}" queued-resources create "$name" --node-id="$name" "${PLACE[@]}" \
        --accelerator-type="$type" --runtime-version="$version" "${options[@]}"
}

install() {
    require_flags name zone
    local archive="${TMPDIR:-/tmp}/elenchus-$$.tar.gz"
    pack_sources "$archive"
    run "${TPU[@]}" tpu-vm scp "$archive" "$name:elenchus.tar.gz" "${PLACE[@]}" --worker=all
    run rm -f "$archive"
    run_on_all_hosts "$(print_unpack_command elenchus)"
}

start() { run_on_all_hosts "$(print_worker_command elenchus tpu --distributed)"; }

delete() {
    require_flags name zone
    run "${TPU[@]}" queued-resources delete "$name" "${PLACE[@]}" --force --quiet
}

wait_for_slice() {
    [[ $DRY_RUN == yes ]] && {
        status
        return
    }
    local state
    while state="$(status)" && [[ $state != ACTIVE ]]; do
        case $state in FAILED | SUSPENDED | SUSPENDING) return 1 ;; esac
        sleep "$poll"
    done
}

# Stops after success and after a wrong flag or config (exit code 2). gcloud does not report other exit codes
# exactly, so every other failure counts as a preemption.
keep() {
    local code
    while true; do
        create || true
        if wait_for_slice && install; then
            code=0
            start || code=$?
            if [[ $DRY_RUN == yes ]] || ((code == 0 || code == 2)); then return "$code"; fi
        fi
        delete || true
        sleep "$poll"
    done
}

fetch() {
    require_flags workdir
    run mkdir -p "$into"
    run gcloud storage rsync --recursive --exclude='.*(checkpoints|/model/).*' "$workdir" "$into"
}

run_actions create status install start keep fetch delete
