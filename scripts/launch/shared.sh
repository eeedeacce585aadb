# shellcheck shell=bash
# Shared by the launchers of several machines; sourced, not run:   source "$(dirname "$0")/shared.sh"
#
# A launcher's flags are lines `NAME=default  # what it is` between `## flags` and `## end`: --NAME=value sets
# $NAME. What stands after `--` goes to scripts.run. --dry_run prints the commands instead of running them.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
DRY_RUN=no
RUN_ARGUMENTS=()
ACTIONS=()

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
    echo 'error: the launchers need bash 4.4 or newer' >&2
    exit 2
fi

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# The comment at the head of a launcher, then its flags with their defaults.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
    echo
    echo 'Flags, with their defaults:'
    sed -n "/^## flags/,/^## end/{s/^\([a-z_]*\)=\([^#]*\)# /  --\1=\2  /p}" "$1"
    echo '  --dry_run             prints the commands, runs none'
}

flag_names() { sed -n '/^## flags/,/^## end/{s/^\([a-z_]*\)=.*/\1/p}' "$1"; }

# parse LAUNCHER ARGUMENTS...: sets the flags, $ACTIONS and $RUN_ARGUMENTS. Its own names start with _, so
# that no flag is called like them.
parse() {
    local _launcher=$1 _argument _flag _flags
    shift
    _flags=" $(flag_names "$_launcher" | tr '\n' ' ')"
    while (($#)); do
        _argument=$1
        shift
        case $_argument in
            --help | -h) usage "$_launcher" && exit 0 ;;
            --dry_run) DRY_RUN=yes ;;
            --)
                RUN_ARGUMENTS=("$@")
                return
                ;;
            --*=*)
                _flag=${_argument%%=*}
                _flag=${_flag#--}
                [[ $_flags == *" $_flag "* ]] || fail "--$_flag is no flag; there are:$_flags"
                printf -v "$_flag" '%s' "${_argument#*=}"
                ;;
            --*) fail "$_argument needs a value: $_argument=...; there are:$_flags" ;;
            *) ACTIONS+=("$_argument") ;;
        esac
    done
}

# act ACTION...: does what was asked for, in order; each action is a function of the launcher.
act() {
    local action
    ((${#ACTIONS[@]})) || fail "say what to do: $*"
    for action in "${ACTIONS[@]}"; do
        [[ " $* " == *" $action "* ]] || fail "$action is none of: $*"
    done
    for action in "${ACTIONS[@]}"; do "$action"; done
}

# need NAME...: each of these flags must have a value.
need() {
    local _flag
    for _flag in "$@"; do [[ -n ${!_flag} ]] || fail "--$_flag must be given"; done
}

quoted() { printf '%s' "${*@Q}"; }

# A command, shown in full or run.
run() {
    if [[ $DRY_RUN == yes ]]; then
        quoted "$@"
        echo
    else
        "$@"
    fi
}

# What another machine is to do in the folder that the sources were put in.
work() { # FOLDER ACCELERATOR FLAGS...
    printf 'cd %s && exec bash scripts/launch/worker.sh %s' "${1@Q}" "$(quoted "${@:2}" "${RUN_ARGUMENTS[@]}")"
}

# The sources at HEAD as a file, for the machines of which a launcher has the list.
pack() { run git -C "$ROOT" archive --format=tar.gz --output="$1" HEAD; }
unpack() { printf 'mkdir -p %s && tar -xzf elenchus.tar.gz -C %s' "${1@Q}" "${1@Q}"; } # FOLDER
