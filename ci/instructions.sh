#!/usr/bin/env bash
# Instructions per packet under callgrind, compared with benches/record/instructions.json (benches/instructions).
# `ci/instructions.sh --record` after a change that is meant.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --locked --bench instructions -- "$@"
