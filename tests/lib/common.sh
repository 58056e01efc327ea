# Sourced by the test scripts: messages, the cache folder, and a safe way to fill it.
# Owns no policy about what is fetched (fetch.sh) or run (tests/run).
# Invariant: what lies in the cache under its final name is whole.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${STOPOVER_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stopover-test}

say() { printf '%s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# with_lock NAME COMMAND...: two test runs at once fetch a thing only once.
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

# scratch NAME: a fresh folder inside the cache, so that the final rename stays on one file system.
# Called under with_lock NAME, so an older one belongs to a run that was killed.
scratch() {
    mkdir -p "$CACHE"
    rm -rf "$CACHE/.$1."??????
    mktemp -d "$CACHE/.$1.XXXXXX"
}
