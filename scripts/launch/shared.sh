# shellcheck shell=bash
# Functions of all launchers; sourced, not run:   source "$(dirname "$0")/shared.sh"
#
# A launcher declares its flags as lines `NAME=default  # description` between `## flags` and `## end`;
# --NAME=value sets $NAME; those in $LIST_FLAGS may be repeated, and have one value a line. Arguments after `--` are passed to scripts.run. --dry_run prints the commands
# instead of running them.
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

# Characters that act on a terminal are printed as bash writes them, such as \E or \n.
fail() {
    local _text="$*" _shown='' _code i LC_CTYPE=C
    for ((i = 0; i < ${#_text}; i++)); do
        if [[ ${_text:i:1} == [[:cntrl:]] ]]; then
            printf -v _code '\\x%02x' "'${_text:i:1}"
            _shown+=$_code
        else
            _shown+=${_text:i:1}
        fi
    done
    printf 'error: %s\n' "$_shown" >&2
    exit 2
}

# print_usage LAUNCHER: prints the comment at its head, then its flags with their defaults.
print_usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
    echo
    echo 'Flags, with their defaults:'
    sed -n "/^## flags/,/^## end/{s/^\([a-z_]*\)=\([^#]*\)# /  --\1=\2  /p}" "$1"
    echo '  --dry_run             prints the commands without running them'
}

# list_flag_names LAUNCHER: prints one name a line.
list_flag_names() { sed -n '/^## flags/,/^## end/{s/^\([a-z_]*\)=.*/\1/p}' "$1"; }

# parse_arguments LAUNCHER ARGUMENTS...: sets the flags, $ACTIONS and $RUN_ARGUMENTS. Local names start with
# _, because a flag of the same name would set the local variable instead.
parse_arguments() {
    local _launcher=$1 _argument _flag _flags
    shift
    _flags=" $(list_flag_names "$_launcher" | tr '\n' ' ')"
    while (($#)); do
        _argument=$1
        shift
        case $_argument in
            --help | -h) print_usage "$_launcher" && exit 0 ;;
            --dry_run) DRY_RUN=yes ;;
            --)
                RUN_ARGUMENTS=("$@")
                return
                ;;
            --*=*)
                _flag=${_argument%%=*}
                _flag=${_flag#--}
                [[ $_flags == *" $_flag "* ]] || fail "unknown flag --$_flag; use one of:$_flags"
                if [[ " ${LIST_FLAGS:-} " == *" $_flag "* && -n ${!_flag} ]]; then
                    printf -v "$_flag" '%s\n%s' "${!_flag}" "${_argument#*=}"
                else
                    printf -v "$_flag" '%s' "${_argument#*=}"
                fi
                ;;
            --*) fail "$_argument needs a value: $_argument=...; flags:$_flags" ;;
            *) ACTIONS+=("$_argument") ;;
        esac
    done
}

# run_actions ACTION...: runs the requested actions in order; the arguments are all actions of the launcher,
# each a function of it. All names are checked before the first action runs.
run_actions() {
    local action
    ((${#ACTIONS[@]})) || fail "no action given; use one of: $*"
    for action in "${ACTIONS[@]}"; do
        [[ " $* " == *" $action "* ]] || fail "unknown action $action; use one of: $*"
    done
    for action in "${ACTIONS[@]}"; do "$action"; done
}

# require_one_of NAME VALUE...: fails unless the flag has one of the values.
require_one_of() {
    local _flag=$1
    shift
    [[ " $* " == *" ${!_flag} "* && -n ${!_flag} ]] || fail "unknown --$_flag=${!_flag}; use one of: $*"
}

# require_number NAME...: fails unless the flags are whole numbers.
require_number() {
    local _flag
    for _flag in "$@"; do
        [[ ${!_flag} =~ ^[0-9]{1,9}$ ]] || fail "--$_flag=${!_flag} must be a whole number"
        printf -v "$_flag" '%d' "$((10#${!_flag}))" # bash reads 08 as a wrong octal number
    done
}

# require_positive NAME...: fails unless the flags are whole numbers from 1 on.
require_positive() {
    local _flag
    require_number "$@"
    for _flag in "$@"; do ((${!_flag} > 0)) || fail "--$_flag=${!_flag} must be at least 1; nearest: 1"; done
}

# require_flags NAME...: fails if one of these flags has no value.
require_flags() {
    local _flag
    for _flag in "$@"; do [[ -n ${!_flag} ]] || fail "--$_flag is required"; done
}

# quote_words WORD...: prints the words quoted for a shell.
quote_words() { printf '%s' "${*@Q}"; }

# run COMMAND...: runs a command, or prints it with --dry_run.
run() {
    if [[ $DRY_RUN == yes ]]; then
        quote_words "$@"
        echo
    else
        "$@"
    fi
}
