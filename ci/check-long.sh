#!/usr/bin/env bash
# What takes hours: two hours of soak, ten million operations on flows against a reference, ten million damaged frames, and ten million fuzzed inputs per target. The result, with commit and
# date, goes to benches/record/check-long.md; commit that file.
#
#   FUZZ_RUNS=1000000 SOAK_SECONDS=600 ci/check-long.sh     a shorter round, recorded as what it was
set -euo pipefail

cd "$(dirname "$0")/.."

runs=${FUZZ_RUNS:-10000000}
soak=${SOAK_SECONDS:-3600}
record=benches/record/check-long.md
log=$(mktemp)
trap 'rm -f "$log"' EXIT

{
    echo "# Last long check"
    echo
    echo "- commit: $(git describe --always --dirty --abbrev=12)"
    echo "- begun: $(date -u '+%F %H:%M UTC')"
    echo "- machine: $(nproc) CPUs, $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
    echo
    echo "| part | result | seconds |"
    echo "|---|---|--:|"
} >"$log.md"
trap 'rm -f "$log" "$log.md"' EXIT

failed=0
part() {
    local name=$1 start=$SECONDS word=passed
    shift
    echo "=== $name: $*"
    if ! "$@" 2>&1 | tee "$log"; then
        word=FAILED
        failed=1
    fi
    echo "| $name | $word | $((SECONDS - start)) |" >>"$log.md"
}

part "soak: demo for $soak s" cargo run --locked --release -- demo --seconds "$soak"
part "soak of flows: full tables and floods for $soak s" env SOAK_SECONDS="$soak" cargo nextest run --locked \
    --no-default-features --cargo-profile fast --test soak --run-ignored only --no-capture
part "flows against the reference: $runs operations" env SLUICEGATE_OPERATIONS="$runs" cargo nextest run --locked \
    --no-default-features --cargo-profile fast --test oracle --no-capture
part "damaged frames through the path: $runs (frames.md)" ci/frames.sh "$runs"
while read -r target; do
    part "fuzz $target: $runs inputs" ci/fuzz.sh "${runs}x" "$target"
done < <(cargo +nightly fuzz list)

{
    echo
    echo "Ended $(date -u '+%F %H:%M UTC')."
} >>"$log.md"
cp "$log.md" "$record"
cat "$record"
exit "$failed"
