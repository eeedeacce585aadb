#!/usr/bin/env bash
# A run on GKE through XPK (pip install xpk), on TPU or GPU nodes of a cluster that `xpk cluster create` made.
#
#   bash scripts/launch/gke.sh submit --name=run1 --cluster=c1 --zone=us-east5-a --type=v5p-128 -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/gke.sh list --cluster=c1 --zone=us-east5-a
#   bash scripts/launch/gke.sh delete --name=run1 --cluster=c1 --zone=us-east5-a
#
# XPK puts this checkout into the image, starts one process a host, and starts all of them again where a host
# was preempted (exit code 75, or a signal): the run continues from its work directory, which is in a bucket.
source "$(dirname "${BASH_SOURCE[0]}")/shared.sh"

## flags
name=              # of the workload
cluster=           # of GKE
zone=              # such as us-east5-a
project=           # Google Cloud project; empty: that of gcloud's configuration
type=v5p-128       # --tpu-type; with device=gpu --device-type, such as h100-mega-80gb-8
device=tpu         # tpu or gpu
slices=1           # TPU slices, or GPU nodes
image=python:3.12-slim  # the base image
restarts=100       # at most
grace=120          # seconds between the preemption notice and the end
## end
parse "${BASH_SOURCE[0]}" "$@"
PLACE=(--zone="$zone" ${project:+--project="$project"})

submit() {
    need name cluster zone
    local size
    case $device in
        tpu) size=(--tpu-type="$type" --num-slices="$slices") ;;
        gpu) size=(--device-type="$type" --num-nodes="$slices") ;;
        *) fail "--device=$device is none of tpu, gpu" ;;
    esac
    local accelerator=tpu
    if [[ $device == gpu ]]; then accelerator=cuda13; fi
    run xpk workload create --workload="$name" --cluster="$cluster" "${PLACE[@]}" "${size[@]}" \
        --base-docker-image="$image" --script-dir="$ROOT" --max-restarts="$restarts" \
        --restart-on-exit-codes=75 --termination-grace-period-seconds="$grace" \
        --command="$(work . "$accelerator" --distributed)"
}

list() {
    need cluster zone
    run xpk workload list --cluster="$cluster" "${PLACE[@]}"
}

delete() {
    need name cluster zone
    run xpk workload delete --workload="$name" --cluster="$cluster" "${PLACE[@]}"
}

act submit list delete
