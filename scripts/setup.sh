# shellcheck shell=bash
# Set-up shared by the launchers; sourced, not run:   source "$(dirname "$0")/setup.sh"
#
# Goes to the repository root, makes .venv from requirements.lock unless one made from this very lock
# is there, and leaves the interpreter in $PYTHON. Needs Python 3.11 or newer; ELENCHUS_PYTHON names
# one that is not on the path. Interrupted anywhere, the next run starts the environment afresh.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PYTHON="$ROOT/.venv/bin/python"

say() { printf '[setup] %s\n' "$*" >&2; }

suits() { "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${ELENCHUS_PYTHON:+"$ELENCHUS_PYTHON"} \
        python3.11 python3.12 python3.13 python3.14 python3 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    say 'error: no Python 3.11 or newer with the venv module; install one or set ELENCHUS_PYTHON'
    return 1
}

# One environment a lock file: the stamp is written last, so it vouches for a whole installation.
lock_hash() { cksum <requirements.lock; }

is_ready() {
    [[ -x $PYTHON && -f .venv/lock && "$(lock_hash)" == "$(<.venv/lock)" ]] &&
        [[ -f .venv/root && "$(<.venv/root)" == "$ROOT" ]]
}

# Installs the clone itself, editable: its folders are the packages elenchus.model, elenchus.data, ...
# The installation holds the clone's path, so a clone that was moved or copied is installed again.
install_clone() {
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
    printf '%s\n' "$ROOT" >.venv/root
}

install_environment() {
    local python started=$SECONDS
    if [[ -x $PYTHON && -f .venv/lock && "$(lock_hash)" == "$(<.venv/lock)" ]]; then
        install_clone
        return
    fi
    python="$(find_python)"
    say "making .venv with $("$python" --version) from requirements.lock, once"
    rm -rf .venv
    "$python" -m venv .venv
    "$PYTHON" -m pip install --no-compile --disable-pip-version-check --requirement requirements.lock >&2
    install_clone
    lock_hash >.venv/lock
    say "environment ready after $((SECONDS - started)) s"
}

mkdir -p .cache
if ! is_ready; then
    # Two launchers started at once wait for each other where flock exists.
    exec 9>.cache/setup.lock
    if command -v flock >/dev/null; then flock 9; fi
    if ! is_ready; then install_environment; fi
    exec 9>&-
fi
