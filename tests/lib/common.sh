# Sourced by the test scripts: messages, the cache folder, and a safe way to fill it.
# Does not decide what is fetched (fetch.sh) or run (tests/run).
# Invariant: whatever has its final name in the cache is complete.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${STOPOVER_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stopover-test}

say() { printf '%s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# with_lock NAME COMMAND...: serializes concurrent test runs, so that each thing is fetched once.
with_lock() {
    local name=$1
    shift
    mkdir -p "$CACHE"
    if command -v flock >/dev/null 2>&1; then
        (
            flock 9
            "$@"
        ) 9>"$CACHE/.$name.lock"
    else
        "$@"
    fi
}

# scratch NAME: an empty folder inside the cache, so that the final rename stays on one file system.
# Call it under with_lock NAME: an older folder then belongs to a run that was killed.
scratch() {
    mkdir -p "$CACHE"
    rm -rf "$CACHE/.$1."??????
    mktemp -d "$CACHE/.$1.XXXXXX"
}
