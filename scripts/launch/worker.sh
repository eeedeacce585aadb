#!/usr/bin/env bash
# Runs this machine's process of a run on several machines; the launchers call it there:
#
#   bash scripts/launch/worker.sh tpu --distributed --config=configs/gsm8k.py --workdir=gs://bucket/run
#
# The first argument is JAX's accelerator: tpu, cuda13, or cpu for none; the others are passed to scripts.run.
# Without others it only makes the environment.
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
