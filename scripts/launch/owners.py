"""Finds other users' runs on the hosts of a slice.

gcloud logs every user into a home folder of their own. So a slice of the same name may be a
colleague's, whose run does not show in one's own home folder.
"""

from __future__ import annotations

import shlex

MARK = 'elenchus-other'
OWN = '"${ELENCHUS_STATE:-$HOME/.elenchus}"'
# Homes are closed to others on the hosts' system; its users may do all by sudo. Processes are seen
# without it. `watched`: a colleague's launch waits for these hosts, or installs there.
FIND = """others() {
    local as=;
    if [ "$(id -u)" != 0 ] && sudo -n true 2>/dev/null; then as='sudo -n'; fi;
    $as bash -c 'own=$1 name=$2; shift 2;
        for home in "$@"; do
            [ "$home" -ef "$own" ] && continue;
            seen=;
            for key in "$home"/.elenchus/*/*/key; do
                [ -f "$key" ] || continue;
                at=${key%/*/key} state=running seen=yes;
                [ -f "${key%/key}/exit_code" ] && state=ended;
                echo "MARK ${home##*/} ${at##*/} $state";
            done;
            [ -z "$seen" ] && [ -f "$home/.elenchus/$name/watched" ] &&
                echo "MARK ${home##*/} $name coming";
        done' others "$HOME" NAME ${ELENCHUS_HOMES:-/home/* /root};
    ps -eo user:32=,args= 2>/dev/null | awk -v own="$(id -un)" '
        $1 != own && /detached\\.sh supervise / {
            for (i = 2; i < NF; i++) if ($i == "supervise") print "MARK", $1, $(i + 1), "running"
        }';
};
if compgen -G OWN/NAME/'*/key' >/dev/null; then others=; else others=$(others | sort -u); fi;
"""
"""Sets $others to lines `MARK USER NAME running|ended|coming`; to none beside one's own run."""


def find_command(name: str) -> str:
    """Returns the command that sets $others on a host, for the run of this name."""
    line = ' '.join(FIND.split()) + ' '
    return line.replace('MARK', MARK).replace('OWN', OWN).replace('NAME', shlex.quote(name))


def describe_others(output: str, *, is_ours: bool) -> str:
    """Returns a description of the runs that the hosts list; '' if there are none.

    Args:
        output: What the hosts printed.
        is_ours: Whether this machine requested the slice: then only running runs count.
    """
    words = [line.partition(MARK)[2].split() for line in output.splitlines() if MARK in line]
    others = {tuple(line) for line in words if len(line) == 3}
    if is_ours:
        others = {line for line in others if line[2] == 'running'}
    return ', '.join(
        f'{user} launches {name} on it'
        if state == 'coming'
        else f'the run {name} of {user} is on it ({state})'
        for user, name, state in sorted(others)
    )
