#!/usr/bin/env bash
# Installs what a fresh Debian 12 or 13 with a Rust toolchain lacks.
#
#   ci/deps.sh build    to compile and run           (make run, Dockerfile)
#   ci/deps.sh test     ... and to run the tests     (make test)
#   ci/deps.sh check    ... and every other check    (make check)
#   ci/deps.sh bench    to compile and measure       (make bench)
#
# A second run finds everything there and takes a fraction of a second. On other systems it installs nothing and
# says what is missing.
set -euo pipefail

level=${1:-build}

# make, a C compiler and git build the shim and the revision; clang is what bindgen reads headers with;
# libdpdk-dev brings the libraries and every poll-mode driver.
packages=(make gcc libc6-dev git ca-certificates pkg-config clang libclang-dev libdpdk-dev)
tools=()
nightly=no
case $level in
build) ;;
test | check)
    # tshark judges our output, iproute2 makes the namespaces of the live tests, ethtool turns veth offloads off; ping, curl and
    # dnsmasq (a DHCP server) are the peers of the host stack, openssl and Python of health checks, curl and Prometheus' client for Python those of the exporter.
    packages+=(tshark iproute2 ethtool iputils-ping curl dnsmasq-base openssl python3 python3-prometheus-client)
    tools+=(cargo-nextest)
    if [ "$level" = check ]; then
        # Peers of the lab's scenarios.
        packages+=(valgrind openssl iperf3 bind9-dnsutils)
        tools+=(cargo-deny cargo-fuzz)
        nightly=yes
    fi
    ;;
bench)
    # dpdk-dev holds dpdk-testpmd, the peer that we measure against.
    packages+=(dpdk-dev)
    ;;
*)
    echo "ci/deps.sh: unknown level '$level': use build, test, check or bench" >&2
    exit 2
    ;;
esac

install_packages() {
    local missing=() package
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "ci/deps.sh: installing ${missing[*]}" >&2
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "ci/deps.sh: not root and no sudo; as root, run: apt-get install --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    "${as_root[@]}" "${apt[@]}" update >&2
    "${as_root[@]}" "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2
}

# Prometheus' own judge of figures, rules and alerts. Out of its package and not with it: that would start a server. Tests that want it say so where it is not.
install_promtool() {
    command -v promtool >/dev/null && return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "ci/deps.sh: not root: promtool (package prometheus) is not installed, and what it judges is skipped" >&2
        return 0
    fi
    echo "ci/deps.sh: installing promtool" >&2
    local folder
    folder=$(mktemp -d)
    if (cd "$folder" && apt-get -qq download prometheus >&2 && dpkg-deb -x prometheus_*.deb . &&
        install -m 0755 usr/bin/promtool /usr/local/bin/promtool); then
        rm -rf "$folder"
    else
        rm -rf "$folder"
        echo "ci/deps.sh: no promtool: what it judges is skipped" >&2
    fi
}

# Other systems: name what is missing by what it does, and leave the installing to their owner.
look_for_programs() {
    local missing=() program
    local -A needed=([make]=make [gcc]=cc [git]=git [pkg-config]=pkg-config [clang]=clang [tshark]=tshark
        [iproute2]=ip [ethtool]=ethtool [valgrind]=valgrind [dpdk-dev]=dpdk-testpmd
        [iputils-ping]=ping [curl]=curl [dnsmasq-base]=dnsmasq)
    for program in "${packages[@]}"; do
        program=${needed[$program]:-}
        [ -z "$program" ] || command -v "$program" >/dev/null || missing+=("$program")
    done
    pkg-config --exists libdpdk 2>/dev/null || missing+=("DPDK 22.11 or later with its pkg-config file (libdpdk.pc)")
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "ci/deps.sh: this system has no apt-get; please install:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
}

install_tools() {
    local tool
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$tool" ] && continue
        echo "ci/deps.sh: installing $tool" >&2
        cargo install --locked --quiet "$tool"
    done
}

# Fuzzing and AddressSanitizer need unstable compiler flags; nothing else is built with the nightly toolchain.
install_nightly() {
    cargo +nightly --version >/dev/null 2>&1 && return 0
    if ! command -v rustup >/dev/null; then
        echo "ci/deps.sh: fuzzing and sanitizers need the nightly toolchain, and there is no rustup to install it with" >&2
        exit 1
    fi
    echo "ci/deps.sh: installing the nightly toolchain" >&2
    rustup --quiet toolchain install nightly --profile minimal --component rust-src
}

if ! command -v cargo >/dev/null; then
    echo "ci/deps.sh: no cargo; install a Rust toolchain first, for example from https://rustup.rs" >&2
    exit 1
fi
if command -v apt-get >/dev/null; then
    install_packages
    case $level in test | check) install_promtool ;; esac
else
    look_for_programs
fi
install_tools
[ "$nightly" = no ] || install_nightly
