#!/usr/bin/env bash
# Mutates the code that keeps data, one change at a time, and names the changes that no test notices.
#
#   tests/mutants.sh                              all modules of .cargo/mutants.toml: a day or more
#   tests/mutants.sh --list                       what would be mutated
#   tests/mutants.sh -F src/gc/lease_tracker.rs   one file: a part of the names that --list prints
#   tests/mutants.sh --in-diff change.diff        what a change touched
#   tests/mutants.sh --sample 40:7                some 40 of all, chosen by seed 7, spread evenly
#   tests/mutants.sh --missed                     those that the last run missed, again: after tests
#                                                 were written, or with more suites
#
#   tests/mutants.sh --pure -f src/catalog/plan.rs  pure files alone, out of a crate of their own
#                                                 (tests/lib/pure_crate.sh): seconds a mutant;
#                                                 --sample and --missed may follow
#
# Arguments go to `cargo mutants`. The working tree is copied, not changed. Reports are in mutants.out
# below cargo's target folder; docs/testing.md lists the survivors that are known, with reasons.
#
# STOPOVER_TEST_SUITES: the suites that have to notice, as arguments of `cargo test`. Those that need
# minutes (soak, trino) or only read text (tidy, docs) are left out by default.

# shellcheck source=tests/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

tool=$("$ROOT/tests/lib/fetch.sh" cargo-mutants)
export PATH="$tool:$PATH"
cd "$ROOT"
target=${CARGO_TARGET_DIR:-$ROOT/target}
mkdir -p "$target"
common=(--output "$target")
suites=()
if [ "${1:-}" = --pure ]; then
    shift
    "$ROOT/tests/lib/pure_crate.sh" "$target/pure"
    cd "$target/pure"
    # Where the dependencies have been built.
    export CARGO_TARGET_DIR=$target
    # 64 cases of each property find what 256 do here, four times as fast.
    export PROPTEST_CASES=${PROPTEST_CASES:-64}
    # Ten times what the tests take without a mutant: a busy machine shows no time out where there is
    # none.
    common+=(--in-place --minimum-test-timeout 30 --timeout-multiplier 10)
    suites+=(-- --lib)
else
    # To all calls of cargo, so that no other suite is built either.
    for suite in ${STOPOVER_TEST_SUITES:---lib --test it --test sim --test storage}; do
        common+=("--cargo-arg=$suite")
    done
fi
case "${1:-}" in
    --sample)
        IFS=: read -r size seed <<<"$2"
        shift 2
        total=$(cargo mutants --list "$@" | wc -l)
        shards=$((total > size ? total / size : 1))
        # A shard has every n-th mutant.
        set -- "$@" --sharding round-robin --shard "$((${seed:-0} % shards))/$shards"
        echo "a sample of $((total / shards)) of $total mutants" >&2
        ;;
    --missed)
        shift
        missed=$target/mutants.out/missed.txt
        [ -s "$missed" ] || die "the last run missed nothing: there is no $missed"
        while read -r mutant; do
            # Its line and column have changed if the file has.
            mutant=$(sed -E 's/^[^ ]+:[0-9]+:[0-9]+: //; s/[][\\.*^$+?(){}|]/\\&/g' <<<"$mutant")
            set -- "$@" --re "$mutant"
        done <"$missed"
        ;;
esac
exec cargo mutants "${common[@]}" "$@" "${suites[@]}"
