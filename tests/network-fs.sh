#!/usr/bin/env bash
# Two machines mount one folder with tests/network_fs, which caches names and locks files as an NFS
# client does, and a daemon runs on each: what one has stored, the other finds at once, whatever its
# machine has cached; the temporaries of dead daemons are removed, and those of living ones are not.
# Needs root, /dev/fuse, curl and flock. STOPOVER_BINARY names the daemon.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

cd "$ROOT"
TARGET="${CARGO_TARGET_DIR:-$ROOT/target}"
BINARY=${STOPOVER_BINARY:-$TARGET/debug/stopover}
CARGO_TARGET_DIR=$TARGET/network-fs cargo build --locked --manifest-path tests/network_fs/Cargo.toml
WORK=$(mktemp -d)
PROCESSES=()

end() {
    for process in "${PROCESSES[@]}"; do kill -9 "$process" 2>/dev/null || true; done
    sleep 1
    umount -l "$WORK/one" "$WORK/two" 2>/dev/null || true
    rm -rf "$WORK"
}
trap end EXIT

mkdir "$WORK/server" "$WORK/one" "$WORK/two"

# machine NAME PORT: mounts the server's folder and starts a daemon on it.
machine() {
    "$TARGET/network-fs/debug/network-fs" "$WORK/server" "$WORK/$1" &
    PROCESSES+=($!)
    for _ in $(seq 100); do
        mountpoint -q "$WORK/$1" && break
        sleep 0.1
    done
    mountpoint -q "$WORK/$1" || die "no file system can be mounted"
    cat >"$WORK/$1.toml" <<END
[server]
listen = "127.0.0.1:$2"
[lease]
sweep_interval = "10s"
[[base_directory]]
uri = "file://$WORK/$1/base"
name = "shared"
END
    "$BINARY" serve --config "$WORK/$1.toml" 2>"$WORK/$1.log" &
    PROCESSES+=($!)
    for _ in $(seq 300); do
        curl -fs "http://127.0.0.1:$2/readyz" >/dev/null && return
        sleep 0.1
    done
    die "the daemon on machine $1 is not ready: $(cat "$WORK/$1.log")"
}

# expect WHAT EXPECTED ACTUAL
expect() { [ "$2" = "$3" ] || die "$1: expected '$2', got '$3'"; }
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
segments() { { find "$WORK/$1/base/v2/segments" -name '*.seg' 2>/dev/null || true; } | wc -l | tr -d ' '; }

machine one 7191
machine two 7192
ONE=http://127.0.0.1:7191/v1/exchanges/q TWO=http://127.0.0.1:7192/v1/exchanges/q

expect 'machine two, before the announcement' 404 "$(status "$TWO/partitions/0")"
expect 'the announcement' 201 \
    "$(status -X PUT -H 'content-type: application/json' -d '{"partitions":1,"ordered":false}' "$ONE")"
expect 'machine two, before the first task' 409 "$(status "$TWO/partitions/0")"
pages="" hidden=0
# write TASK: at machine one, of whose segment machine two has not been told.
write() {
    expect 'the pages' 200 "$(status -H 'content-type: application/octet-stream' \
        --data-binary "page $1;" "$ONE/sinks/$1/0/pages?partition=0")"
    known=$(segments two)
    expect 'the finish' 200 "$(status -X POST "$ONE/sinks/$1/0/finish")"
    expect 'segments at the server' $(($1 + 1)) "$(segments server)"
    # Not if a sweep of its daemon came in between.
    [ "$known" != "$(segments two)" ] || hidden=$((hidden + 1))
    pages="${pages}page $1;"
}
for task in 0 1 2; do
    write "$task"
    expect 'the partition, at machine two' "$pages" \
        "$(curl -s "$TWO/partitions/0?tasks=$((task + 1))")"
done
# As the plugin reads: the chosen attempts are planned, and the handle is read.
for task in 3 4 5; do
    write "$task"
    planned=$(curl -s -H 'content-type: application/json' \
        -d "{\"attempts\": [[$task, 0]], \"target_size\": 1048576}" "$TWO/handles")
    handle=$(sed -n 's/.*"handle": *"\([^"]*\)".*/\1/p' <<<"$planned")
    [ -n "$handle" ] || die "task $task has no handle at machine two: $planned"
    read=$(curl -s -H 'content-type: text/plain' --data-binary "$handle" \
        "${TWO%/exchanges/q}/read" | tr -d '\0')
    [[ $read == *"page $task;"* ]] ||
        die "machine two does not read what it has planned of task $task: $read"
done
[ "$hidden" -gt 0 ] || die "the file system hid nothing from machine two"
say "machine two found what its cache hid, $hidden times"

folder=$(dirname "$(find "$WORK/server/base/v2/segments" -name '*.seg' | head -n 1)")
dead=0000000000000001-000000000001.seg.0000000000000007-1.tmp
living=0000000000000001-000000000002.seg.0000000000000007-2.tmp
touch "$folder/$dead" "$folder/$living"
touch "${folder/#$WORK\/server/$WORK\/one}"
exec 9>>"${folder/#$WORK\/server/$WORK\/one}/$living"
flock -n -x 9 || die "the file system has no locks"
for _ in $(seq 300); do
    [ -e "$folder/$dead" ] || break
    sleep 0.1
done
[ ! -e "$folder/$dead" ] || die "the temporary of a dead daemon is still there"
[ -e "$folder/$living" ] || die "the temporary of a living daemon was removed"
exec 9>&-
for _ in $(seq 300); do
    [ -e "$folder/$living" ] || break
    sleep 0.1
done
[ ! -e "$folder/$living" ] || die "the temporary of a daemon that has died is still there"
say "temporaries were removed once nobody had locked them"

expect 'the close, through machine two' 204 "$(status -X DELETE "$TWO")"
expect 'segments after the close' 0 "$(segments server)"
expect 'the exchange at machine one' 410 "$(status "$ONE/partitions/0")"
