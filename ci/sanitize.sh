#!/bin/sh
# Memory checkers over the fence's own tests (src/dpdk and tests/eal.rs).
#
#   asan      AddressSanitizer on the nightly toolchain: Rust code instrumented, soft pools on the heap checked byte by
#             byte. DPDK is not instrumented and its memory is mapped, not allocated: EAL buffers are not checked.
#   valgrind  memcheck on a debug build, over virtual devices on ordinary pages. The same limit: buffers of a pool are
#             one mapping, so a use after free of an mbuf goes unseen; reads of uninitialised stack and heap do not.
#             Tests that look for CPUs or time are left out.
#
# usage: ci/sanitize.sh [asan|valgrind]...   (both without an argument; a tool that is missing is a failure)
set -eu
cd "$(dirname "$0")/.."

asan() {
    # Leaks: DPDK keeps what it allocates until the process ends, and so does our argument vector, on purpose.
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
        cargo +nightly test --target x86_64-unknown-linux-gnu --lib dpdk::
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
        cargo +nightly test --target x86_64-unknown-linux-gnu --test eal
}

valgrind_() {
    command -v valgrind >/dev/null || { echo "valgrind is not there: apt-get install valgrind" >&2; exit 1; }
    program=$(cargo test --no-run --test eal --message-format=json |
        sed -n 's/.*"name":"eal".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    for test in a_pool_gives_and_takes a_null_port_runs_stops_and_runs_again rings_connect_two_ports \
        a_capture_goes_through_unchanged soft_frames_do_not_reach_a_driver; do
        SLUICEGATE_TEST_ALONE=$test valgrind --quiet --error-exitcode=9 --leak-check=no "$program" --exact "$test"
    done
}

[ $# -gt 0 ] || set -- asan valgrind
for tool in "$@"; do
    case $tool in
    asan) asan ;;
    valgrind) valgrind_ ;;
    *) echo "usage: ci/sanitize.sh [asan|valgrind]..." >&2; exit 2 ;;
    esac
done
