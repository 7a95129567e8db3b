# Everything here is plain cargo; the targets spell out what goes with what.
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
PROGRAMS := macvlan host-local multus-shim
PACKAGES := -p macvlan-plugin -p host-local-plugin -p multus-shim

.PHONY: demo test soak lint dist bench

# Attach two sandboxes with the real program, in namespaces of their own.
demo:
	cargo build --quiet --profile plugin -p macvlan-plugin -p host-local-plugin
	@cargo run --quiet -p testkit --bin demo -- target/plugin

# Every test. With CI=true a test that cannot run here is a failure; else it is ignored, and says why.
test:
	cargo test --workspace

# The deaths, errors and crowds that the reservation store must survive, ten times as many as in `make test`.
soak:
	SOAK=1 CI=true cargo test -p host-local-ipam -p host-local-plugin --test faults -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Static programs, ready to be copied to /opt/cni/bin.
dist:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --profile plugin --target $(TARGET) $(PACKAGES)
	mkdir -p target/dist
	cp $(foreach program,$(PROGRAMS),target/$(TARGET)/plugin/$(program)) target/dist/
	ls -l target/dist

# Whole processes against the kernel's floor and the Go plugins, then the allocator by itself.
bench: dist
	cargo run --quiet --release -p benches --bin processes -- target/dist
	cargo run --quiet --release -p benches --bin scale -- target/dist
	cargo run --quiet --release -p benches --bin contention
	cargo build --quiet --release -p multus-daemon
	cargo run --quiet --release -p benches --bin pods -- target/release/multus-daemon target/dist
	cargo bench --quiet -p benches
