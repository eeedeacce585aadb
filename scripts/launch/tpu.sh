#!/usr/bin/env bash
# A run on a Cloud TPU slice of one or many hosts, through gcloud.
#
#   bash scripts/launch/tpu.sh create --name=pod --zone=us-central1-a --type=v5litepod-256 --spot=yes
#   bash scripts/launch/tpu.sh install start --name=pod --zone=us-central1-a -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/tpu.sh fetch --workdir=gs://bucket/run --into=runs/pod
#   bash scripts/launch/tpu.sh delete --name=pod --zone=us-central1-a
#
# create   asks for the slice as a queued resource
# status   says in what state it is
# install  copies the sources at HEAD to all hosts
# start    runs scripts.run on all hosts; the same command continues a run that was stopped
# keep     create, install and start, again after every preemption until the run is done
# fetch    copies summary, report and metrics from the bucket
# delete   gives the slice back
#
# The work directory must be in a bucket that all hosts can write to. A preempted host gets SIGTERM: all hosts
# save and leave.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
name=              # of the slice and its queued resource
zone=              # such as us-central1-a
type=v5litepod-16  # accelerator type
version=v2-alpha-tpuv5-lite  # runtime version that belongs to the type
project=           # Google Cloud project; empty: that of gcloud's configuration
spot=no            # yes: cheaper, may be preempted
workdir=           # of fetch
into=runs/fetched  # of fetch
poll=60            # seconds between looks at the queue
## end
parse "${BASH_SOURCE[0]}" "$@"

TPU=(gcloud compute tpus)
PLACE=(--zone="$zone" ${project:+--project="$project"})

on_all() { # COMMAND
    need name zone
    run "${TPU[@]}" tpu-vm ssh "$name" "${PLACE[@]}" --worker=all --command="$1"
}

status() {
    need name zone
    run "${TPU[@]}" queued-resources describe "$name" "${PLACE[@]}" --format='value(state.state)'
}

create() {
    need name zone
    local more=()
    if [[ $spot == yes ]]; then more+=(--spot); fi
    run "${TPU[@]}" queued-resources create "$name" --node-id="$name" "${PLACE[@]}" \
        --accelerator-type="$type" --runtime-version="$version" "${more[@]}"
}

install() {
    need name zone
    local archive="${TMPDIR:-/tmp}/elenchus-$$.tar.gz"
    pack "$archive"
    run "${TPU[@]}" tpu-vm scp "$archive" "$name:elenchus.tar.gz" "${PLACE[@]}" --worker=all
    run rm -f "$archive"
    on_all "$(unpack elenchus)"
}

start() { on_all "$(work elenchus tpu --distributed)"; }

delete() {
    need name zone
    run "${TPU[@]}" queued-resources delete "$name" "${PLACE[@]}" --force --quiet
}

wait_for_slice() {
    [[ $DRY_RUN == yes ]] && {
        status
        return
    }
    local now
    while now="$(status)" && [[ $now != ACTIVE ]]; do
        case $now in FAILED | SUSPENDED | SUSPENDING) return 1 ;; esac
        sleep "$poll"
    done
}

# Stops at success and at mistakes of the user (exit code 2); gcloud tells others apart no further.
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
    need workdir
    run mkdir -p "$into"
    run gcloud storage rsync --recursive --exclude='.*(checkpoints|/model/).*' "$workdir" "$into"
}

act create status install start keep fetch delete
