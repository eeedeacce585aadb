#!/usr/bin/env bash
# The main job: every stage on the generated lab task, with a report at the end; arguments are passed on:
#   bash scripts/lab.sh [--config.seed=1 ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# A tiny model, whose rows do not divide over eight chips. One device samples it on one core, so two
# cores are two devices.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
devices=$(($(getconf _NPROCESSORS_ONLN) > 1 ? 2 : 1))
export XLA_FLAGS="${XLA_FLAGS:---xla_force_host_platform_device_count=$devices}"
exec "$PYTHON" -m scripts.run --config configs/lab.py --workdir runs/lab "$@"
