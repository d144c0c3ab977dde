#!/usr/bin/env bash
# dpdk-testpmd and Sluicegate side by side on one core, and Sluicegate on two (benches/peers). Arguments go to the bench:
#
#   ci/bench.sh                      everything: about 26 minutes
#   ci/bench.sh --only "two workers" one worker against two, and half of the flows misaligned: 75 seconds
#   ci/bench.sh --only connections   stages that read protocols, on made-up connections that are all new: 3 minutes
#   ci/bench.sh --only "real captures" the same on the corpus that SLUICEGATE_CORPUS names, in a loop: 2 minutes; without it that table is left out, which is said
#   ci/bench.sh --quick              three short windows on 64 B, 1k frames: one minute
#   RECORD=1 ci/bench.sh             keeps table and raw windows in benches/record/<date>-<cpu>.{md,json}
#
# As root it reserves 2 MB hugepages for the time of the run; otherwise it uses those that are free, or says that it
# measured on ordinary pages.
set -euo pipefail

cd "$(dirname "$0")/.."

# Pages of 2 MB for all programs of a table together; benches/peers asks for the same number.
pages=3072
setting=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages

if [ -w "$setting" ]; then
    before=$(cat "$setting")
    if [ "$before" -lt "$pages" ]; then
        trap 'echo "$before" > "$setting"' EXIT
        echo "$pages" >"$setting"
    fi
fi

record=()
if [ "${RECORD:-0}" = 1 ]; then
    cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1 | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9' '-')
    record=(--record "benches/record/$(date -u +%F)-${cpu%-}")
fi

cargo bench --locked --bench peers -- "${record[@]}" "$@"
