# shellcheck shell=bash
# Set-up shared by the launchers; sourced, not run:
#
#   LOCKS=(tpu gcs); source scripts/setup.sh
#
# Goes to the repository root, makes .venv from requirements.lock and the lock files scripts/locks/NAME.lock that
# $LOCKS names, unless one made from these very locks is there, and leaves the interpreter in $PYTHON. Only files
# whose hashes are in the locks are installed. Interrupted anywhere, the next run starts the environment afresh.
#
# Needs Python 3.11 or newer with venv and pip; where there is none (Ubuntu 22.04, so Cloud TPU's images, has 3.10),
# uv brings one. Environment variables:
#   ELENCHUS_PYTHON       an interpreter that is not on the path
#   ELENCHUS_ENVIRONMENT  folder of an environment of your own (conda, an image): it is used as it is
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PYTHON="$ROOT/.venv/bin/python"
BROUGHT_PYTHON=3.12 # version that uv brings

say() { printf '[setup] %s\n' "$*" >&2; }

# pip_install WORD...: no hidden build environments, whose packages no hash would check.
pip_install() {
    "$PYTHON" -m pip install --quiet --no-compile --disable-pip-version-check --no-build-isolation "$@" >&2
}

# suits PYTHON: new enough, and able to make an environment with pip. Debian's python3.x without python3.x-venv has
# the module venv but not ensurepip.
suits() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${ELENCHUS_PYTHON:+"$ELENCHUS_PYTHON"} \
        python3.11 python3.12 python3.13 python3.14 python3 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    bring_python
}

# Prints the path of uv: the one of this machine, or one that pip or pipx installs below .cache.
find_uv() {
    local candidate python
    for candidate in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" .cache/uv/bin/uv; do
        if "$candidate" --version >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do
        if "$python" -m pip install --quiet --target .cache/uv --require-hashes \
            --requirement scripts/locks/uv.lock >/dev/null 2>&1 && .cache/uv/bin/uv --version >/dev/null 2>&1; then
            echo .cache/uv/bin/uv
            return
        fi
    done
    local version
    version="$(sed -n 's/^uv==\([^ ]*\).*/\1/p' scripts/locks/uv.lock)"
    if PIPX_HOME=.cache/pipx PIPX_BIN_DIR=.cache/uv/bin pipx install "uv==$version" >/dev/null 2>&1 &&
        .cache/uv/bin/uv --version >/dev/null 2>&1; then
        echo .cache/uv/bin/uv
        return
    fi
    return 1
}

# Prints the path of an interpreter that uv downloads below .cache, which all machines with this folder share.
bring_python() {
    local uv python
    if uv="$(find_uv)"; then
        say "no Python 3.11 or newer with venv and ensurepip here: $uv brings Python $BROUGHT_PYTHON"
        export UV_PYTHON_INSTALL_DIR="$ROOT/.cache/python"
        if "$uv" python install --quiet "$BROUGHT_PYTHON" >&2 &&
            python="$("$uv" python find --managed-python "$BROUGHT_PYTHON")" && suits "$python"; then
            echo "$python"
            return
        fi
        say "$uv could not bring Python $BROUGHT_PYTHON"
    fi
    say "error: no Python 3.11 or newer that can make an environment, and none could be brought; set ELENCHUS_PYTHON, or run" \
        "'sudo add-apt-repository -y ppa:deadsnakes/ppa && sudo apt-get install -y python$BROUGHT_PYTHON-venv'" \
        '(Ubuntu 22.04; newer ones and Debian need no add-apt-repository)'
    return 1
}

hash_of() { cksum <"$1"; }
lock_file() { echo "scripts/locks/$1.lock"; }

# The stamp of a lock is written last, so it vouches for a whole installation.
is_stamped() { [[ -f $1 && "$(hash_of "$2")" == "$(<"$1")" ]]; }
has_core() { [[ -x $PYTHON ]] && is_stamped .venv/lock requirements.lock; }
has_clone() { [[ -f .venv/root && "$(<.venv/root)" == "$ROOT" ]]; }
is_ready() {
    local name
    has_core && has_clone || return 1
    for name in ${LOCKS[@]+"${LOCKS[@]}"}; do is_stamped ".venv/lock.$name" "$(lock_file "$name")" || return 1; done
}

make_venv() { rm -rf .venv && "$1" -m venv .venv >&2 && [[ -x $PYTHON ]]; }

make_environment() {
    local python
    python="$(find_python)"
    say "making .venv with $("$python" --version) from requirements.lock, once"
    if ! make_venv "$python"; then
        say "$python cannot make an environment"
        python="$(bring_python)"
        make_venv "$python"
    fi
    # First the build backend: some packages come as sources only.
    pip_install --require-hashes --requirement "$(lock_file build)"
    pip_install --require-hashes --requirement requirements.lock
}

# Installs the clone itself, editable: its folders are the packages elenchus.model, elenchus.data, ...
# The installation holds the clone's path, so a clone that was moved or copied is installed again.
install_clone() {
    pip_install --no-deps --editable .
    printf '%s\n' "$ROOT" >.venv/root
}

# A lock that changed is installed again; of the plugins for CUDA an environment can hold one.
install_lock() {
    local name=$1 other
    for other in cuda12 cuda13; do
        if [[ $name == cuda1? && $name != "$other" && -e .venv/lock.$other ]]; then
            say "error: .venv has the packages of $other, which exclude $name: delete .venv, or use $other"
            return 1
        fi
    done
    say "installing $(lock_file "$name")"
    # The stamp goes first: whatever ends the installation, it is done again.
    rm -f ".venv/lock.$name"
    pip_install --require-hashes --requirement "$(lock_file "$name")"
    hash_of "$(lock_file "$name")" >".venv/lock.$name"
}

install_environment() {
    local name started=$SECONDS
    if ! has_core; then
        make_environment
        install_clone
        hash_of requirements.lock >.venv/lock
    elif ! has_clone; then
        install_clone
    fi
    for name in ${LOCKS[@]+"${LOCKS[@]}"}; do
        if ! is_stamped ".venv/lock.$name" "$(lock_file "$name")"; then install_lock "$name"; fi
    done
    say "environment ready after $((SECONDS - started)) s"
}

# Launchers started at once, on this machine or on others with the same folder, wait for each other; everything
# that is installed is installed inside of the lock.
prepare() {
    mkdir -p .cache
    if is_ready; then return; fi
    exec 9>.cache/setup.lock
    if ! command -v flock >/dev/null || ! flock 9; then
        say 'warning: no file locks here; do not start two launchers at once before the environment is made'
    fi
    if ! is_ready; then install_environment; fi
    exec 9>&-
}

# Arrays in huge pages (glibc 2.35 or newer; others ignore it): a processor that trains takes and frees large arrays all
# the time, and the faults of small pages cost a twentieth of it.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

LOCKS=(${LOCKS[@]+"${LOCKS[@]}"})
if [[ -n ${ELENCHUS_ENVIRONMENT:-} ]]; then
    PYTHON="$ELENCHUS_ENVIRONMENT/bin/python"
    [[ -x $PYTHON ]] || { say "error: ELENCHUS_ENVIRONMENT=$ELENCHUS_ENVIRONMENT has no bin/python" && exit 2; }
    # The code is this clone's, whatever that environment has installed as elenchus.
    mkdir -p .cache/path && ln -sfn "$ROOT" .cache/path/elenchus
    export PYTHONPATH="$ROOT/.cache/path${PYTHONPATH:+:$PYTHONPATH}"
elif [[ ! -f requirements.lock ]]; then
    say "error: $ROOT is no clone of the repository (it has no requirements.lock); from an installed package use" \
        'elenchus run --config=lab --workdir=runs/lab'
    exit 2
else
    for name in ${LOCKS[@]+"${LOCKS[@]}"}; do
        [[ -f $(lock_file "$name") ]] || { say "error: no lock file $(lock_file "$name")" && exit 2; }
    done
    prepare
fi
