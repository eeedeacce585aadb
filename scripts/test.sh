#!/usr/bin/env bash
# Lint, format and tests, on any machine with Python 3.11+; arguments go to pytest:
#   bash scripts/test.sh [tests/test_house_rules.py -k imports ...]
set -euo pipefail
LOCKS=(test)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest -n 3 --dist loadfile --no-loadscope-reorder "$@"
