#!/usr/bin/env bash
# Has processes of runs on this machine write the Python stacks of all their threads; they go on:
#
#   bash scripts/launch/stacks.sh [PROCESS]...       without numbers: all processes of scripts.run of this user
#
# They write to their error output (SIGQUIT), so into the log of whatever started them. The signal ends a process that
# does not know it; so it goes to those alone that handle it, which a run does from its first second.
set -euo pipefail

handles_quit() {
    local caught
    # Of the mask of signals that are caught, SIGQUIT is the third bit (proc(5)).
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) || return 1
    [[ -n $caught ]] && (((16#${caught: -1} >> 2) & 1))
}

list_runs() {
    local folder
    for folder in /proc/[0-9]*; do
        if [[ -O $folder ]] && tr '\0' ' ' 2>/dev/null <"$folder/cmdline" | grep -q -- '-m scripts\.run '; then
            echo "${folder#/proc/}"
        fi
    done
}

processes=("$@")
if ((!$#)); then mapfile -t processes < <(list_runs); fi
sent=no
for process in "${processes[@]}"; do
    if handles_quit "$process" && kill -QUIT "$process" 2>/dev/null; then sent=yes; fi
done
if [[ $sent == no ]]; then echo "no process here can say where it is: none runs, or it is just being started"; fi
