# shellcheck shell=bash
# Ends the bill of a slice from its own hosts, when the machine that runs `keep` is off. `tpu.py` puts a line with the
# settings before it and passes it as the startup script, so it runs as root from the first minute on:
#
#   NAME ZONE PROJECT WORKDIR  which queued resource; where the run is
#   BUDGET   seconds from the boot, unless `keep` has written a later end (~/.elenchus/NAME/deadline)
#   AFTER    delete, or leave: then only the budget counts
#
# The slice is deleted (1) five minutes after the budget is spent, (2) 30 minutes after the end of the run, or (3) an
# hour after the boot without a run, (2) and (3) from the last look of `keep`. Before that the log and a line on the end
# go to WORKDIR/launch/NAME/ if that is in a bucket. Deletion needs a service account with roles/tpu.admin and the
# scope cloud-platform. What it may do is in may_delete, for `keep`.
set -u
STATE=${ELENCHUS_GUARD:-/var/lib/elenchus-guard}
GRACE=${ELENCHUS_GUARD_GRACE:-300} IDLE=${ELENCHUS_GUARD_IDLE:-1800} UNUSED=${ELENCHUS_GUARD_UNUSED:-3600}
POLL=${ELENCHUS_GUARD_POLL:-30}
mkdir -p "$STATE" && chmod 755 "$STATE"
if [[ ! -s $STATE/began ]]; then date +%s >"$STATE/began"; fi
began=$(<"$STATE/began")

say() { echo "[guard] $(date -u +%FT%TZ) $*" >>"$STATE/log"; }
metadata() { curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/$1"; }
get_token() {
    metadata instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p'
}
call() { curl -s -o "$STATE/answer" -w '%{http_code}' -H "Authorization: Bearer $(get_token)" "$@"; }

# newest FILE: prints the highest number in ~/.elenchus/NAME/FILE of all users.
newest() {
    local home
    for home in ${ELENCHUS_HOMES:-/home/* /root}; do cat "$home/.elenchus/$NAME/$1" 2>/dev/null; done |
        grep -xE '[0-9]+' | sort -n | tail -n 1
}

find_runs() {
    local home
    for home in ${ELENCHUS_HOMES:-/home/* /root}; do compgen -G "$home/.elenchus/$NAME/*/key"; done
}

# upload FILE OBJECT
upload() {
    local bucket=${WORKDIR#gs://} path
    [[ $WORKDIR == gs://* ]] || return 0
    path="${bucket#"${bucket%%/*}"}/launch/$NAME/$2"
    path=$(sed 's,^/*,,; s,/,%2F,g; s, ,%20,g' <<<"$path")
    call -X POST -H 'Content-Type: text/plain' --data-binary "@$1" \
        "https://storage.googleapis.com/upload/storage/v1/b/${bucket%%/*}/o?uploadType=media&name=$path" >/dev/null
}

report() {
    local key folder code=unused stopped=- version=-
    while IFS= read -r key; do
        folder=${key%/key}
        code=$(tr -d ' ' <"$folder/exit_code" 2>/dev/null || echo 137)
        if [[ -f $folder/stopped ]]; then stopped=stopped; fi
        version=$(cat "$folder/version" 2>/dev/null || echo -)
        tail -c 10000000 "$folder/log" >"$STATE/run_log" && upload "$STATE/run_log" "$(uname -n).log"
    done < <(find_runs)
    echo "elenchus-end $(uname -n) $code $stopped $began $(date +%s) $version" >"$STATE/end"
    upload "$STATE/end" "$(uname -n).end"
}

# Prints why the slice is to be deleted, nothing if it is not.
decide() {
    local now deadline watched key ended=0 alive=0 since
    now=$(date +%s) deadline=$(newest deadline) watched=$(newest watched)
    if ((now >= ${deadline:-$((began + BUDGET))} + GRACE)); then echo 'the budget is spent' && return; fi
    [[ $AFTER == delete ]] || return 0
    watched=${watched:-$began}
    while IFS= read -r key; do
        if [[ -f ${key%/key}/exit_code ]]; then
            ended=1
            since=$(date -r "${key%/key}/exit_code" +%s)
            if ((since > watched)); then watched=$since; fi
        else
            alive=1
        fi
    done < <(find_runs)
    if ((alive)); then return; fi
    if ((ended)) && ((now - watched > IDLE)); then echo 'the run has ended, and nobody watches'; fi
    if ((!ended)) && ((now - watched > UNUSED)); then echo 'nothing runs here, and nobody watches'; fi
}

guard() {
    local number may answer why
    number=$(metadata instance/attributes/agent-worker-number || echo 0)
    if [[ -z $PROJECT ]]; then
        PROJECT=$(metadata instance/attributes/tpu-env | sed -n "s/^CONSUMER_PROJECT_ID: *'\(.*\)'.*/\1/p")
        PROJECT=${PROJECT:-$(metadata project/project-id)}
    fi
    answer=$(call -X POST -H 'Content-Type: application/json' --data '{"permissions":["tpu.nodes.delete"]}' \
        "https://cloudresourcemanager.googleapis.com/v1/projects/$PROJECT:testIamPermissions")
    may=unknown
    if [[ $answer == 200 ]]; then may=no && if grep -q tpu.nodes.delete "$STATE/answer"; then may=yes; fi; fi
    echo "$may" >"$STATE/may_delete"

    while true; do
        why=$(decide)
        if [[ -n $why ]]; then
            say "$why: deletes $NAME"
            report
            # The first host deletes; the others have time for their logs, and delete if it could not.
            if [[ $number == 0 ]]; then sleep "$POLL"; else sleep $((POLL * 20)); fi
            answer=$(call -X DELETE \
                "https://tpu.googleapis.com/v2/projects/$PROJECT/locations/$ZONE/queuedResources/$NAME?force=true")
            say "answer $answer: $(head -c 300 "$STATE/answer" | tr '\n' ' ')"
        fi
        sleep "$POLL"
    done
}

# A startup script that does not end would hold up the boot.
guard </dev/null >/dev/null 2>&1 &
disown
