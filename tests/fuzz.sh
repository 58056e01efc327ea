#!/usr/bin/env bash
# Fuzzes the decoders with libFuzzer: each for a while, from the inputs in fuzz/regressions.
#
#   tests/fuzz.sh                       every decoder, 60 seconds each
#   tests/fuzz.sh --seconds 600 scan    only this one, longer
#
# Needs a C++ compiler for libFuzzer itself; the stable toolchain will do, as no sanitizer is used
# (the project has no unsafe code in its decoders). cargo-fuzz is built once into the test cache.
# What it finds lies in fuzz/artifacts; put it into fuzz/regressions/<decoder> under a name that
# says what it is, and the ordinary tests replay it (tests/it/corpus.rs).

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

SECONDS_EACH=60
TARGETS=""
while [ $# -gt 0 ]; do
    case "$1" in
        --seconds)
            SECONDS_EACH=$2
            shift 2
            ;;
        -*) die "unknown option $1; the head of this file says what there is" ;;
        *)
            [ -f "$ROOT/fuzz/fuzz_targets/$1.rs" ] || die "there is no decoder $1 in fuzz/fuzz_targets"
            TARGETS+=" $1"
            shift
            ;;
    esac
done
[ -n "$TARGETS" ] || TARGETS="batch scan segment trailer footer handle config"

PATH=$("$ROOT/tests/lib/fetch.sh" cargo-fuzz):$PATH
cd "$ROOT/fuzz"
cargo fuzz build --sanitizer none
failed=""
for target in $TARGETS; do
    mkdir -p "corpus/$target"
    printf '==== %s, %s s ====\n' "$target" "$SECONDS_EACH"
    cargo fuzz run --sanitizer none "$target" "corpus/$target" "regressions/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=4096 -timeout=10 -print_final_stats=1 2>&1 |
        grep -E 'stat::number_of_executed_units|stat::new_units_added|panicked|SUMMARY|Test unit' || true
    if find "artifacts/$target" -type f 2>/dev/null | grep -q .; then
        failed+=" $target"
    fi
done
[ -z "$failed" ] || die "found something in$failed: see fuzz/artifacts"
