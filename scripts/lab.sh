#!/usr/bin/env bash
# The main job: every stage on the generated lab task, with a report at the end; arguments are passed on:
#   bash scripts/lab.sh [--config.seed=1 ...]
set -euo pipefail

# glibc keeps freed arrays, in huge pages, for the next step; setup.sh asks for the pages only.
KEEP=glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=67108864
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:$KEEP}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# A tiny model, whose rows do not divide over eight chips.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
exec "$PYTHON" -m scripts.run --config configs/lab.py --workdir runs/lab "$@"
