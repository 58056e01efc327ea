#!/usr/bin/env bash
# With curl alone: writes a page, finishes the sink, and reads the page, from a second daemon too.
#
#   tests/smoke.sh URL [SECOND-URL]   against running daemons (the second on the same directories)
#   tests/smoke.sh                    starts two daemons itself, from the binary that was built
#
# For daemons with a token or TLS: STOPOVER_SMOKE_CURL="--cacert ca.pem --oauth2-bearer TOKEN".
# Takes seconds. Prints counts at the end; the exit code is not 0 if a check failed.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d)
DAEMONS=()
PASSED=0
FAILED=0

clean_up() {
    local pid
    for pid in ${DAEMONS[@]+"${DAEMONS[@]}"}; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# check CLAIM COMMAND...
check() {
    local claim=$1
    shift
    if "$@"; then
        PASSED=$((PASSED + 1))
        printf 'ok      %s\n' "$claim"
    else
        FAILED=$((FAILED + 1))
        printf 'FAILED  %s\n' "$claim"
        printf '        HTTP %s: %s\n' "${STATUS:-?}" "$(head -c 500 "$WORK/body" | tr -d '\0')"
    fi
}

# http METHOD URL [curl options]: writes the body to $WORK/body and the status to STATUS.
http() {
    local method=$1 url=$2
    shift 2
    : >"$WORK/body"
    # shellcheck disable=SC2086 # several options
    STATUS=$(curl -sS --noproxy '*' --max-time 60 ${STOPOVER_SMOKE_CURL:-} -X "$method" \
        -o "$WORK/body" -w '%{http_code}' "$@" "$url") || STATUS="none (curl exit code $?)"
}

# answers STATUS METHOD URL [curl options]
answers() {
    local wanted=$1
    shift
    http "$@"
    [ "$STATUS" = "$wanted" ]
}

# refused STATUS SLUG METHOD URL [curl options]: a problem+json of that type.
refused() {
    local wanted=$1 slug=$2
    shift 2
    answers "$wanted" "$@" && grep -q "\"urn:stopover:problem:$slug\"" "$WORK/body"
}

# reads FILE METHOD URL [curl options]: the body is FILE, byte for byte.
reads() {
    local file=$1
    shift
    answers 200 "$@" && cmp -s "$file" "$WORK/body"
}

# The stream of records of /v1/read: one block record, one page frame, the end record.
reads_framed() {
    local page=$1 url=$2 size
    size=$(wc -c <"$page")
    answers 200 POST "$url/v1/read" -H 'Content-Type: text/plain' \
        --data-binary "@$WORK/handle" || return 1
    [ "$(wc -c <"$WORK/body")" -eq $((32 + 12 + size + 32)) ] || return 1
    tail -c +45 "$WORK/body" | head -c "$size" | cmp -s - "$page" # after block record and frame
}

start_daemon() {
    local name=$1 binary=$2 pid tries
    "$binary" serve --listen 127.0.0.1:0 --base-directory "file://$WORK/data" \
        >"$WORK/$name.out" 2>"$WORK/$name.log" &
    pid=$!
    DAEMONS+=("$pid")
    for tries in $(seq 100); do
        URL=$(sed -n 's/^listening on //p' "$WORK/$name.out")
        [ -n "$URL" ] && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    printf 'error: %s did not start (after %s tries):\n' "$binary" "$tries" >&2
    cat "$WORK/$name.log" >&2
    exit 1
}

find_binary() {
    local candidate
    for candidate in "${STOPOVER_BINARY:-}" "$ROOT/target/release/stopover" \
        "$ROOT/target/debug/stopover"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    printf 'error: no stopover binary: run cargo build first, or give the URL of a daemon:\n' >&2
    printf '       tests/smoke.sh http://127.0.0.1:7077\n' >&2
    return 1
}

write_and_read() {
    local exchange="$FIRST/v1/exchanges/$ID"
    local sink="$exchange/sinks/0/0"
    local json='Content-Type: application/json' octets='Content-Type: application/octet-stream'
    local page="$WORK/page" closed
    head -c 100000 /dev/urandom >"$page"

    check 'the daemon is alive' answers 200 GET "$FIRST/healthz"
    check 'the daemon is ready: its base directories work' answers 200 GET "$FIRST/readyz"
    check 'an exchange is announced' answers 201 PUT "$exchange" -H "$json" \
        --data '{"partitions": 4, "ordered": false}'
    check 'announcing it again changes nothing' answers 200 PUT "$exchange" -H "$json" \
        --data '{"partitions": 4, "ordered": false}'
    check 'a page is written' answers 200 POST "$sink/pages?partition=3" -H "$octets" \
        --data-binary "@$page"
    check 'nothing is read before the sink has finished' refused 409 attempt-not-committed \
        GET "$exchange/partitions/3"
    check 'the sink finishes' answers 200 POST "$sink/finish" -H "$json" \
        --data "{\"batches\": 1, \"pages\": 1, \"bytes\": 100000}"
    check 'finishing it again gives the same answer' answers 200 POST "$sink/finish" -H "$json" \
        --data "{\"batches\": 1, \"pages\": 1, \"bytes\": 100000}"
    check 'the page is read from the first daemon' reads "$page" GET "$exchange/partitions/3"
    check 'and from the second one' reads "$page" GET "$SECOND/v1/exchanges/$ID/partitions/3"

    check 'source handles are planned' answers 200 POST "$exchange/handles" -H "$json" \
        --data '{"attempts": [[0, 0]], "target_size": 67108864}'
    check 'and the last line is the end line' grep -q '"end": *true' "$WORK/body"
    sed -n 's/.*"handle": *"\([^"]*\)".*/\1/p' "$WORK/body" | head -n 1 | tr -d '\n' >"$WORK/handle"
    check 'the page is read by its handle, as records' reads_framed "$page" "$FIRST"
    check 'and from the second daemon too' reads_framed "$page" "$SECOND"

    check 'a partition beyond the last is refused' refused 400 invalid-request \
        GET "$exchange/partitions/4"
    check 'an identifier with a dot is refused' refused 400 invalid-request \
        PUT "$FIRST/v1/exchanges/a.b" -H "$json" --data '{"partitions": 1, "ordered": false}'
    check 'an unknown JSON member is refused' refused 400 invalid-request \
        PUT "$exchange" -H "$json" --data '{"partitions": 4, "ordered": false, "colour": "red"}'
    check 'another partition count is a conflict' refused 409 exchange-conflict \
        PUT "$exchange" -H "$json" --data '{"partitions": 5, "ordered": false}'
    check 'a page after finish is refused' refused 409 sink-finished \
        POST "$sink/pages?partition=3" -H "$octets" --data-binary "@$page"
    check 'a broken batch is refused' refused 400 invalid-frame \
        POST "$exchange/sinks/1/0/pages?batch=0" \
        -H 'Content-Type: application/vnd.stopover.pages' --data-binary 'not a batch of frames'
    check 'a broken handle is refused' refused 400 invalid-handle \
        POST "$FIRST/v1/read" -H 'Content-Type: text/plain' --data-binary 'AAAA'
    check 'an unknown path is not found' refused 404 not-found GET "$FIRST/v1/nothing"
    check 'an exchange that was never announced is not found' refused 404 exchange-not-found \
        GET "$FIRST/v1/exchanges/never-announced-$$/partitions/0"

    check 'the exchange is closed' answers 204 DELETE "$exchange"
    check 'closing it again changes nothing' answers 204 DELETE "$exchange"
    for closed in "$FIRST" "$SECOND"; do
        check "it is gone from $closed" gone GET "$closed/v1/exchanges/$ID/partitions/3"
    done
    check 'a late writer is refused' refused 410 exchange-closed \
        POST "$exchange/sinks/2/0/pages?partition=0" -H "$octets" --data-binary "@$page"
}

gone() {
    http "$@"
    [ "$STATUS" = 404 ] || [ "$STATUS" = 410 ]
}

if [ $# -gt 0 ]; then
    FIRST=${1%/}
    SECOND=${2:-$FIRST}
    SECOND=${SECOND%/}
else
    BINARY=$(find_binary)
    mkdir "$WORK/data"
    start_daemon first "$BINARY"
    FIRST=$URL
    start_daemon second "$BINARY"
    SECOND=$URL
fi
ID="smoke-$$-$(date +%s)"
write_and_read
printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
[ "$FAILED" -eq 0 ]
