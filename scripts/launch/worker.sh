#!/usr/bin/env bash
# What a machine does that takes part in a run of several; the launchers call it there:
#
#   bash scripts/launch/worker.sh tpu --distributed --config=configs/gsm8k.py --workdir=gs://bucket/run
#
# The first argument is jax's accelerator: tpu, cuda13, or cpu for none; the rest goes to scripts.run. With
# nothing more it only makes the environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"

accelerator=$1
shift
if [[ $accelerator != cpu && ! -f .venv/$accelerator ]]; then
    "$PYTHON" -m pip install --disable-pip-version-check --constraint requirements.lock \
        "jax[$accelerator]" 'etils[epath-gcs]' >&2
    touch ".venv/$accelerator"
fi
(($# == 0)) || exec "$PYTHON" -m scripts.run "$@"
