#!/usr/bin/env bash
# Starts a run on GKE through XPK (pip install xpk), on TPU or GPU nodes of a cluster of `xpk cluster create`.
#
#   bash scripts/launch/gke.sh submit --name=run1 --cluster=c1 --zone=us-east5-a --type=v5p-128 -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/gke.sh list --cluster=c1 --zone=us-east5-a
#   bash scripts/launch/gke.sh delete --name=run1 --cluster=c1 --zone=us-east5-a
#
# XPK copies this checkout into the image and starts one process per host. After a preemption (exit code 75, or
# a signal) it restarts all processes, and the run continues from its work directory, which is in a bucket.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
name=              # name of the workload
cluster=           # GKE cluster
zone=              # zone of the cluster, such as us-east5-a
project=           # Google Cloud project; empty: the one of gcloud's configuration
type=v5p-128       # --tpu-type; with device=gpu --device-type, such as h100-mega-80gb-8
device=tpu         # tpu or gpu
slices=1           # number of TPU slices or GPU nodes
image=python:3.12-slim  # base image
restarts=100       # largest number of restarts
grace=120          # seconds between the preemption notice and the kill
## end
parse_arguments "${BASH_SOURCE[0]}" "$@"
PLACE=(--zone="$zone" ${project:+--project="$project"})

submit() {
    require_flags name cluster zone
    local size
    case $device in
        tpu) size=(--tpu-type="$type" --num-slices="$slices") ;;
        gpu) size=(--device-type="$type" --num-nodes="$slices") ;;
        *) fail "unknown --device=$device; use tpu or gpu" ;;
    esac
    local accelerator=tpu
    if [[ $device == gpu ]]; then accelerator=cuda13; fi
    run xpk workload create --workload="$name" --cluster="$cluster" "${PLACE[@]}" "${size[@]}" \
        --base-docker-image="$image" --script-dir="$ROOT" --max-restarts="$restarts" \
        --restart-on-exit-codes=75 --termination-grace-period-seconds="$grace" \
        --command="$(print_worker_command . "$accelerator" --distributed)"
}

list() {
    require_flags cluster zone
    run xpk workload list --cluster="$cluster" "${PLACE[@]}"
}

delete() {
    require_flags name cluster zone
    run xpk workload delete --workload="$name" --cluster="$cluster" "${PLACE[@]}"
}

run_actions submit list delete
