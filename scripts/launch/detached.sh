#!/usr/bin/env bash
# Runs a command on this machine that outlives the connection which started it; the launchers call it there:
#
#   bash detached.sh start NAME KEY ATTEMPT VERSION COMMAND...   returns once the command runs
#   bash detached.sh status NAME KEY                     prints one line (below)
#   bash detached.sh stop NAME | kill NAME               SIGTERM, once, so that it saves; SIGKILL
#   bash detached.sh abort NAME CODE                     SIGKILL by the launcher, which counts as exit code CODE
#   bash detached.sh logs NAME LINES [HOST]              of this host alone
#   bash detached.sh stacks NAME                         prints where the threads of the run are; it goes on
#
# KEY says which run it is, ATTEMPT which start of it, VERSION of which sources. ssh and gcloud repeat a command after
# a lost connection, so a start whose run is alive, or whose ATTEMPT has ended already, starts nothing. Exit code 3:
# another run is alive here. The folder ~/.elenchus/NAME/HOST has key, attempt, version, process, child, log, heartbeat
# and exit_code.
#
# ~/.elenchus/NAME/deadline has the time, in seconds since 1970, at which the budget is spent. The run then gets
# SIGTERM, two minutes later SIGKILL, and its exit code is 124, as that of timeout(1).
#
# Status: `elenchus-status HOST absent`, `... other`, `... running SECONDS_SINCE_HEARTBEAT VERSION`, or
# `... ended CODE SECONDS_SINCE stopped|- VERSION`.
set -euo pipefail

if (($# < 2)); then
    echo 'error: use detached.sh start|status|stop|kill|abort|logs|stacks NAME ...; the head of the file says more' >&2
    exit 2
fi
action=$1 name=$2
shift 2
folder="${ELENCHUS_STATE:-$HOME/.elenchus}/$name/$(uname -n)"
HEARTBEAT=10 # seconds
GRACE=${ELENCHUS_GRACE:-120} # seconds from SIGTERM to SIGKILL when the budget is spent
SPENT=124

# write FILE TEXT: whole or not at all. On a full disk it fails, which must hide no state and hold up no signal.
write() { printf '%s\n' "$2" >"$folder/$1.new" && mv -f "$folder/$1.new" "$folder/$1"; }

read_file() { if [[ -f $folder/$1 ]]; then cat "$folder/$1"; else echo "$2"; fi; }

# Prints when a process began, because its number may be another's after a restart; nothing for one that has ended and
# that nobody waits for, as in a container whose first process is no init.
print_birth() {
    local words
    if [[ -r /proc/$1/stat ]]; then
        read -ra words < <(sed 's/.*) //' "/proc/$1/stat")
        if [[ ${words[0]:-Z} != [ZX] ]]; then echo "${words[19]}"; fi
    elif [[ "$(ps -o stat= -p "$1")" != Z* ]]; then
        ps -o lstart= -p "$1" || true
    fi
}

is_alive() {
    local process birth
    [[ -f $folder/process ]] || return 1
    read -r process birth <"$folder/process"
    [[ -n $birth && "$(print_birth "$process" 2>/dev/null)" == "$birth" ]]
}

print_age() {
    local since
    since=$(date -r "$folder/$1" +%s 2>/dev/null || date -r "$folder/heartbeat" +%s 2>/dev/null || date +%s)
    echo $(($(date +%s) - since))
}

print_status() {
    local key="$1" state
    state="elenchus-status $(uname -n)"
    if is_alive; then
        if [[ $key != - && "$(read_file key -)" != "$key" ]]; then
            echo "$state other"
        else
            echo "$state running $(print_age heartbeat) $(read_file version -)"
        fi
    elif [[ ! -f $folder/key ]] || [[ $key != - && "$(read_file key -)" != "$key" ]]; then
        echo "$state absent"
    else
        # A supervisor that was killed, or a machine that went down, leaves no exit code.
        [[ -f $folder/exit_code ]] || write exit_code 137 2>/dev/null || true
        echo "$state ended $(read_file exit_code 137) $(print_age exit_code) $(read_file stopped -) $(read_file version -)"
    fi
}

start() {
    local key=$1 attempt=$2 version=$3 detach=(nohup) began=$SECONDS
    shift 3
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    if command -v flock >/dev/null; then flock 9; fi
    if is_alive; then
        print_status "$key"
        [[ "$(read_file key -)" == "$key" ]] || exit 3
        return
    fi
    if [[ "$(read_file attempt -)" == "$attempt" ]]; then
        print_status "$key"
        return
    fi
    rm -f "$folder"/{process,child,exit_code,stopped,spent,term,heartbeat}
    write spare '   ' # becomes exit_code: a disk that is full by then has room for it
    write key "$key"
    write attempt "$attempt"
    write version "$version"
    if command -v setsid >/dev/null; then detach=(setsid nohup); fi
    "${detach[@]}" bash "$0" supervise "$name" "$@" </dev/null >>"$folder/log" 2>&1 9>&- &
    disown
    until [[ -f $folder/process && ( -f $folder/child || -f $folder/exit_code ) ]]; do
        ((SECONDS - began < 60)) || { echo "error: the run did not start; see $folder/log" >&2 && exit 1; }
        sleep 0.1
    done
    print_status "$key"
}

# Prints the seconds that the budget has left, HEARTBEAT without a budget.
print_left() {
    local deadline
    deadline=$(cat "${folder%/*}/deadline" 2>/dev/null || true)
    if [[ $deadline =~ ^[0-9]+$ ]]; then echo $((deadline - $(date +%s))); else echo "$HEARTBEAT"; fi
}

# Sends SIGTERM once a start, whoever asks first: a second one would end scripts.run before it has saved.
terminate() {
    if (set -C && : >"$folder/term") 2>/dev/null || [[ ! -e $folder/term ]]; then
        kill -TERM "$(<"$folder/child")" 2>/dev/null || true
    fi
}

# Ends the command when the budget is spent; it may have been raised since the last look.
enforce_budget() {
    (($(print_left) <= 0)) || return 0
    if [[ ! -f $folder/spent ]]; then
        echo "[detached] $(date -u +%FT%TZ) the budget is spent: SIGTERM, and SIGKILL in $GRACE s"
        write spent "$(($(date +%s) + GRACE))" || true
        terminate
    elif (($(date +%s) >= $(read_file spent 0))); then
        kill -KILL "$(<"$folder/child")" 2>/dev/null || true
    fi
}

# Prints how long to sleep until the next heartbeat, or until the budget ends.
print_pause() {
    local left
    left=$(print_left)
    if [[ -f $folder/spent ]]; then left=1; fi
    echo $((left < 1 ? 1 : left < HEARTBEAT ? left : HEARTBEAT))
}

# Waits for the command and writes its exit code. A machine that goes down sends SIGTERM to all processes: the
# supervisor stays, and does not pass the signal on, because a second one ends scripts.run at once.
supervise() {
    local code=0
    # A trap that is a command is default again in the child; in the foreground its code is not lost.
    trap : TERM INT HUP
    write heartbeat "$(date +%s)"
    echo "[detached] $(date -u +%FT%TZ) on $(uname -n): $*"
    write process "$$ $(print_birth $$)"
    (
        trap '' TERM INT HUP
        while [[ -n "$(print_birth $$)" ]]; do
            write heartbeat "$(date +%s)" || true
            if [[ -f $folder/child ]]; then enforce_budget; fi
            sleep "$(print_pause)"
        done
    ) >>"$folder/log" 2>/dev/null &
    disown
    bash -c 'printf "%s\n" "$$" >"$0" && exec "$@"' "$folder/child" "$@" || code=$?
    if [[ -f $folder/spent ]] && ((code != 0)); then code=$SPENT; fi
    printf '%3d\n' "$code" 1<>"$folder/spare" && mv -f "$folder/spare" "$folder/exit_code"
    echo "[detached] $(date -u +%FT%TZ) ended with exit code $code"
}

# Prints what the command adds to its log within two seconds of being asked (stacks.sh).
print_stacks() {
    local size
    if ! is_alive || [[ ! -f $folder/child ]]; then echo 'no run is alive here' && return; fi
    size=$(wc -c <"$folder/log")
    bash "${BASH_SOURCE[0]%/*}/stacks.sh" "$(<"$folder/child")"
    sleep 2
    tail -c "+$((size + 1))" "$folder/log"
}

case $action in
    start) start "$@" ;;
    supervise) supervise "$@" ;;
    status) print_status "$1" ;;
    stop)
        # One that has ended is marked too: somebody may wait to start it again.
        if [[ -f $folder/key ]]; then write stopped stopped || true; fi
        if is_alive && [[ -f $folder/child ]]; then terminate; fi
        print_status -
        ;;
    kill | abort)
        if [[ $action == kill && -f $folder/key ]]; then write stopped stopped || true; fi
        if is_alive; then
            process="$(cut -d' ' -f1 <"$folder/process")"
            kill -KILL -- "-$process" 2>/dev/null || kill -KILL "$(<"$folder/child")" "$process" 2>/dev/null || true
            write exit_code "${1:-137}" || true
        fi
        print_status -
        ;;
    logs) if [[ -f $folder/log && ${2:-$(uname -n)} == "$(uname -n)" ]]; then tail -n "$1" "$folder/log"; fi ;;
    stacks) print_stacks ;;
    *)
        echo "error: unknown action $action; use one of: start status stop kill abort logs stacks" >&2
        exit 2
        ;;
esac
