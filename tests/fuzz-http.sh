#!/usr/bin/env bash
# Runs schemathesis against a real daemon: it generates requests from the API description, and none
# may be answered with a 5xx status.
#
#   tests/fuzz-http.sh                  with 100 examples per operation
#   tests/fuzz-http.sh --examples 1000
#
# Needs Python 3 with venv. The test command does not need it: tests/it/http_fuzz.rs generates its
# own requests. STOPOVER_BINARY names the daemon; the default is what cargo built.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

EXAMPLES=100
if [ "${1:-}" = --examples ]; then
    EXAMPLES=$2
fi
BINARY=${STOPOVER_BINARY:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/stopover}
[ -x "$BINARY" ] || die "$BINARY is missing: cargo build"
SCHEMATHESIS=$("$ROOT/tests/lib/fetch.sh" schemathesis)

WORK=$(mktemp -d)
"$BINARY" serve --listen 127.0.0.1:0 --base-directory "file://$WORK/data" \
    >"$WORK/listening" 2>"$WORK/log" &
DAEMON=$!
trap 'kill "$DAEMON" 2>/dev/null || true; wait "$DAEMON" 2>/dev/null || true; rm -rf "$WORK"' EXIT
for _ in $(seq 100); do
    [ -s "$WORK/listening" ] && break
    sleep 0.1
done
URL=$(sed -n 's/^listening on //p' "$WORK/listening")
[ -n "$URL" ] || die "the daemon did not start: $(tail -n 3 "$WORK/log")"

cd "$WORK"
"$SCHEMATHESIS" run "$URL/openapi.json" --url "$URL" --checks not_a_server_error \
    --max-examples "$EXAMPLES" --request-timeout 30 --seed 1
