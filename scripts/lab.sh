#!/usr/bin/env bash
# The main job: every stage on the generated lab task, with a report at the end; arguments are passed on:
#   bash scripts/lab.sh [--config.seed=1 ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# A tiny model, whose rows do not divide over eight chips.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec "$PYTHON" -m scripts.run --config configs/lab.py --workdir runs/lab "$@"
