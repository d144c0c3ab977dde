#!/bin/sh
# Models: every order in which a few threads may meet over what workers share (src/flow, src/stages), weak memory included.
#
# A build of its own, since `--cfg loom` changes the atomics of the whole crate; optimised, since a model runs its threads many
# thousand times over. LOOM_MAX_PREEMPTIONS bounds how often a thread may be interrupted between two atomic steps at an
# arbitrary place: 3 finds what is known of such bugs (loom's documentation) and ends in minutes.
#
# usage: ci/loom.sh [NAME]   (only the models with NAME in their path)
set -eu
cd "$(dirname "$0")/.."

RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}" CARGO_TARGET_DIR=target/loom \
    cargo test --locked --profile loom --no-default-features --lib "${1:-loom_}"
