#!/usr/bin/env bash
# Sends FRAMES damaged frames (10 million) through the path in an optimised build, each held against the oracle of
# src/path/arbitrary_input: ci/frames.sh [FRAMES]. The result, with commit and date, goes to benches/record/frames.md.
set -euo pipefail

cd "$(dirname "$0")/.."

frames=${1:-10000000}
record=benches/record/frames.md
log=$(mktemp)
trap 'rm -f "$log"' EXIT

commit=$(git describe --always --dirty --abbrev=12)
SLUICEGATE_FRAMES=$frames cargo nextest run --locked --no-default-features --cargo-profile fast --lib --no-capture \
    damaged_frames_meet_the_fate_of_the_rules 2>&1 | tee "$log"

{
    echo "# Last run of damaged frames through the path"
    echo
    echo "Golden frames with bits flipped, fields overwritten, cut, spliced, under every profile and setting; each had one fate,"
    echo "the one that the oracle states; none panicked, and after each all buffers were back."
    echo
    echo "- commit: $commit"
    echo "- ended: $(date -u '+%F %H:%M UTC')"
    echo "- machine: $(nproc) CPUs, $(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
    echo
    echo "| what | count |"
    echo "|---|--:|"
    grep '^| ' "$log"
} >"$record"
cat "$record"
