#!/usr/bin/env bash
# Starts a run on a Cloud TPU slice of one or several hosts, through gcloud. Guide: docs/pods.md.
#
#   bash scripts/launch/tpu.sh keep --name=pod --zone=us-central1-a --type=v5litepod-16 --spot=yes --max_hours=24 -- \
#       --config=configs/gsm8k.py --workdir=gs://bucket/run
#   bash scripts/launch/tpu.sh status logs cost --name=pod --zone=us-central1-a
#   bash scripts/launch/tpu.sh fetch --workdir=gs://bucket/run --into=runs/pod
#
# `keep` brings the run to its end and deletes the slice. The run goes on without this machine: after a lost
# connection, Ctrl-C or a closed lid the same command watches it again.
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"

launch tpu "$@"
