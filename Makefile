# Everything here is plain cargo; the targets spell out what goes with what.
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
# What a runtime starts for a moment: small, and quick to load.
PLUGINS := macvlan host-local multus-shim multus passthru
PLUGIN_PACKAGES := -p macvlan-plugin -p host-local-plugin -p multus-shim -p multus -p passthru
# What stays. The daemon must unwind, so that a panic is one failed request.
SERVICES := $(notdir $(wildcard $(addprefix bins/,multus-daemon thin_entrypoint kubeconfig_generator cert-approver)))
SERVICE_PACKAGES := $(addprefix -p ,$(SERVICES))
# What is in the image; some of it is also in its root, where upstream's manifests look.
IMAGE := multus-daemon multus-shim multus passthru thin_entrypoint kubeconfig_generator cert-approver install_multus
IMAGE_ROOT := install_multus thin_entrypoint kubeconfig_generator cert-approver
OUT := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo test vm e2e soak diff fuzz lint dist image bench instructions instructions-baseline

# Attach two sandboxes with the real program, in namespaces of their own.
demo:
	cargo build --quiet --profile plugin -p macvlan-plugin -p host-local-plugin
	@cargo run --quiet -p testkit --bin demo -- target/plugin

# Every test; some run the programs of several packages. With CI=true a test that cannot run here is a failure; else it is
# ignored, and says why.
test:
	cargo build --quiet --workspace --bins
	cargo test --workspace

# The tests that the kernel matters to, on that of a suite of Debian's, in a virtual machine. See tests/vm/README.md.
KERNEL ?= bookworm
vm:
	tests/vm/run $(KERNEL)

# Through containerd, with a cluster behind it: the one of KUBECONFIG, or else a double; and through podman, without one. See
# tests/e2e/README.md.
e2e:
	cargo build --quiet -p multus-daemon -p multus-shim -p passthru -p macvlan-plugin -p host-local-plugin
	CI=true E2E_KUBECONFIG="$(abspath $(KUBECONFIG))" cargo test -p e2e

# The deaths, errors and crowds that the reservation store must survive, ten times as many as in `make test`; every error and
# every odd reply of the kernel at every system call of macvlan and of multus; the daemon killed and failed at each; and
# everything at once for twenty minutes, or SOAK_SECONDS, as SOAK_SEED chooses.
soak:
	cargo build --quiet --workspace --bins
	SOAK=1 CI=true cargo test -p host-local-ipam -p host-local-plugin --test faults -- --nocapture
	SOAK=1 CI=true cargo test -p macvlan-plugin -p multus --test faults -- --nocapture
	SOAK=1 CI=true cargo test -p multus-daemon --test kills --test errors --test soak -- --nocapture

# Generated configurations and commands against the Go plugins, ten times as many as in `make test`.
diff: export DIFFERENTIAL_SEED := $(or $(DIFFERENTIAL_SEED),$(shell date +%s))
diff:
	cargo build --quiet -p macvlan-plugin -p host-local-plugin
	DIFFERENTIAL_FULL=1 CI=true cargo test -p differential -- --nocapture

# Hostile input, every program of fuzz/ for so many seconds, as many at once as there are processors. `make test` tries what is
# in fuzz/corpus; cargo-fuzz takes the same directory.
FUZZ_SECONDS ?= 15
FUZZ_COVERAGE := level=4 inline-8bit-counters pc-table trace-compares
fuzz:
	RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module \
	    $(FUZZ_COVERAGE:%=-Cllvm-args=-sanitizer-coverage-%)" \
	    cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --target $(TARGET)
	@printf '%s\n' $(notdir $(basename $(wildcard fuzz/fuzz_targets/*.rs))) | xargs -P "$$(nproc)" -I {} sh -c ' \
	    trap "" PIPE && found=target/fuzz/found/{} && mkdir -p $$found && \
	    target/fuzz/$(TARGET)/release/{} $$found fuzz/corpus/{} -artifact_prefix=target/fuzz/{}- \
	        -dict=fuzz/keys.dict -max_len=4096 -timeout=25 -max_total_time=$(FUZZ_SECONDS) >target/fuzz/{}.log 2>&1 && \
	    echo "{}: $$(tail -n 1 target/fuzz/{}.log)" || { cat target/fuzz/{}.log; exit 255; }'

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Static programs. The plugins among them are ready to be copied to /opt/cni/bin. They are at a fixed address, as the Go
# plugins are: a tenth of the time of an ADD would go into moving a program that ends at once.
dist: export CARGO_PROFILE_RELEASE_STRIP := debuginfo
dist:
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
		cargo build --quiet --profile plugin --target $(TARGET) $(PLUGIN_PACKAGES)
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --release --target $(TARGET) $(SERVICE_PACKAGES)
	mkdir -p target/dist
	cp $(foreach program,$(PLUGINS),$(OUT)/$(TARGET)/plugin/$(program)) target/dist/
	cp $(foreach program,$(SERVICES),$(OUT)/$(TARGET)/release/$(program)) target/dist/
	ls -l target/dist

# The files of the image, below target/image. Device information is exchanged in /var/run, where others have a link.
image: dist
	rm -rf target/image
	mkdir -p target/image/usr/src/multus-cni/bin target/image/run target/image/var
	ln -s ../run target/image/var/run
	ln -s multus-daemon target/image/usr/src/multus-cni/bin/install_multus
	cp $(addprefix target/dist/,$(filter $(PLUGINS) $(SERVICES),$(IMAGE))) target/image/usr/src/multus-cni/bin/
	cd target/image && ln -s $(addprefix usr/src/multus-cni/bin/,install_multus $(filter $(IMAGE_ROOT),$(SERVICES))) .

# Attachments and allocations, as whole processes and in one, against the kernel's floor and peers; the report goes to
# docs/benchmarks. Some minutes, best on a machine that does nothing else.
bench: dist
	cargo build --quiet --release -p multus-daemon
	cargo bench --quiet -p benches
	cargo run --quiet --release -p benches -- target/dist $(OUT)/release/multus-daemon $(OUT)/criterion docs/benchmarks

# The instructions of what every attachment goes through, against those that were committed; needs valgrind. Unlike times they
# are the same on a busy machine.
instructions:
	cargo run --quiet --release -p instructions -- check benches/instructions/baseline

# After a change that is meant: the new counts, to be committed with it.
instructions-baseline:
	cargo run --quiet --release -p instructions -- write benches/instructions/baseline
