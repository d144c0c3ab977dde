# Each target installs what it needs (ci/deps.sh) and then runs cargo; nothing else is hidden here.

# Seconds that `make run` shows.
DEMO_SECONDS ?= 10
# Seconds of fuzzing per target in `make check`.
FUZZ_SECONDS ?= 30

.DEFAULT_GOAL := help
.PHONY: help run lab test check further check-long bench image

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## watch frames go through the firewall pipeline and come back, checked one by one
	@ci/deps.sh build
	cargo run --locked --release -- demo --seconds $(DEMO_SECONDS)

lab: ## play the scenarios of lab/: client, gateway, appliances and server in network namespaces (needs root)
	@ci/deps.sh check
	cargo build --locked --release
	@for scenario in lab/*.toml; do target/release/sluicegate lab run $$scenario || exit 1; done

test: ## all tests: with DPDK, without it, and the examples in the docs
	@ci/deps.sh test
	cargo nextest run --locked --workspace
	cargo nextest run --locked --no-default-features --features program
	cargo test --locked --workspace --doc

check: test further ## everything that must pass before a change lands (40 minutes on 2 cores)

further: ## the part of check that is not test
	@ci/deps.sh check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --no-default-features --features program
	cargo deny --log-level error check bans licenses sources
	ci/loom.sh
	ci/instructions.sh
	ci/sanitize.sh
	ci/fuzz.sh $(FUZZ_SECONDS)

check-long: ## soak and ten million fuzzed frames per target (hours); writes benches/record/check-long.md
	@ci/deps.sh check
	ci/check-long.sh

bench: ## dpdk-testpmd and Sluicegate side by side; RECORD=1 keeps the table in benches/record/
	@ci/deps.sh bench
	ci/bench.sh

image: ## container image
	docker build --tag sluicegate .
