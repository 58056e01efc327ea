#!/usr/bin/env bash
# Fuzzes each decoder with libFuzzer for some time, starting from the inputs in fuzz/regressions.
#
#   tests/fuzz.sh                       every decoder, 60 seconds each
#   tests/fuzz.sh --seconds 600 scan    only this one, longer
#
# Needs a C++ compiler for libFuzzer. The stable toolchain suffices, since no sanitizer is used (the
# decoders have no unsafe code). cargo-fuzz is built once into the test cache. What it finds is in
# fuzz/artifacts: move it to fuzz/regressions/<decoder> under a name that describes it, and the
# ordinary tests replay it (tests/it/corpus.rs).

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
        -*) die "unknown option $1: see the head of this file" ;;
        *)
            [ -f "$ROOT/fuzz/fuzz_targets/$1.rs" ] ||
                die "unknown decoder $1: see fuzz/fuzz_targets"
            TARGETS+=" $1"
            shift
            ;;
    esac
done
[ -n "$TARGETS" ] || TARGETS="batch scan segment trailer footer handle config read open"

PATH=$("$ROOT/tests/lib/fetch.sh" cargo-fuzz):$PATH
cd "$ROOT/fuzz"
# The whole crate builds for minutes.
FEATURES=()
case " $TARGETS " in *" read "* | *" open "*) FEATURES=(--features daemon) ;; esac
cargo fuzz build --sanitizer none "${FEATURES[@]}"
failed=""
for target in $TARGETS; do
    mkdir -p "corpus/$target"
    printf '==== %s, %s s ====\n' "$target" "$SECONDS_EACH"
    cargo fuzz run --sanitizer none "${FEATURES[@]}" "$target" "corpus/$target" "regressions/$target" -- \
        -max_total_time="$SECONDS_EACH" -max_len=4096 -timeout=10 -print_final_stats=1 2>&1 |
        grep -E 'stat::(number_of_executed_units|new_units_added)|panicked|SUMMARY|Test unit' ||
        true
    if find "artifacts/$target" -type f 2>/dev/null | grep -q .; then
        failed+=" $target"
    fi
done
[ -z "$failed" ] || die "failures in$failed: see fuzz/artifacts"
