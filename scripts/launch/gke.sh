#!/usr/bin/env bash
# Starts a run on GKE through XPK (pip install xpk), on TPU or GPU nodes of a cluster of `xpk cluster create`.
# Guide: docs/pods.md.
#
#   bash scripts/launch/gke.sh keep --name=run1 --cluster=c1 --zone=us-east5-a --type=v5p-128 -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/gke.sh status logs --name=run1 --cluster=c1 --zone=us-east5-a
#   bash scripts/launch/gke.sh delete --name=run1 --cluster=c1 --zone=us-east5-a
#
# An image with the sources at HEAD runs on every host. After a preemption the cluster starts all processes again,
# and the run continues from its work directory, which is in a bucket. `create` submits and returns; `keep` watches
# until the end and deletes the workload. `stop` deletes it too: its processes get SIGTERM and save.
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"

launch gke "$@"
