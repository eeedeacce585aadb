#!/usr/bin/env bash
# Starts a run on a list of machines that ssh reaches without a password, one process per machine. Guide: docs/pods.md.
#
#   bash scripts/launch/ssh.sh keep --hosts=gpu1,gpu2,gpu3 -- --config=configs/gsm8k.py --workdir=/shared/run
#   bash scripts/launch/ssh.sh status logs --hosts=gpu1,gpu2,gpu3
#   bash scripts/launch/ssh.sh stop --hosts=gpu1,gpu2,gpu3
#
# The first machine is the coordinator; the others must reach its --port. The work directory must be on a file
# system that all machines share, or in a bucket. Processes outlive the connection; `create` and `delete` do nothing.
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"

launch ssh "$@"
