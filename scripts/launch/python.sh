# shellcheck shell=bash
# Finds a Python for the launchers; sourced, not run. They need 3.9 or newer, and nothing installed.
set -euo pipefail

# launch CLOUD ARGUMENTS...: replaces this shell by the launcher.
launch() {
    local folder candidate
    folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    for candidate in ${ELENCHUS_PYTHON:+"$ELENCHUS_PYTHON"} python3 python \
        python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then
            exec "$candidate" "$folder/__main__.py" "$@"
        fi
    done
    echo 'error: the launchers need Python 3.9 or newer; install one or set ELENCHUS_PYTHON' >&2
    exit 2
}
