# duplex: build and test. `make demo` is the whole tour, `make test` is what CI runs.
export CGO_ENABLED = 0
export GOFLAGS = -trimpath -buildvcs=false

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/duplex-run/duplex/internal/cmdline.version=$(VERSION)
EMBED := internal/embedded/files

.PHONY: demo build embed check test test-oci test-engines fuzz bench bench-vmm bench-boot bench-container boot-budget bootbench setup \
	test-kernel reproduce-kernel clean

## demo: on a fresh machine, install what is missing, build, compare
demo: setup build
	bin/duplex doctor || true
	bin/duplex kernel fetch
	bin/duplex compare -n 5

setup:
	scripts/setup

## build: bin/duplex, one static binary
build: embed
	LDFLAGS='$(LDFLAGS)' scripts/build
	ln -sf duplex bin/duplex-runtime

# The programs that bin/duplex carries.
embed:
	scripts/embed

## check: the quick part, under a minute
check:
	scripts/check

## test: everything CI runs
test: setup build
	scripts/check --static
	scripts/test

## test-oci: runtime-tools' validation of `duplex oci`, as root
test-oci: build
	scripts/test-oci

## test-engines: podman and containerd with `duplex oci`, as root; WHERE=lab for cgroup v2; docs/oci.md
test-engines: setup build
	scripts/test-engines $(WHERE)

## fuzz: every fuzz target, FUZZTIME each (10m); hours in all
fuzz: embed
	scripts/fuzz

## bench: benchmarks of the packages
bench: build
	go test -run '^$$' -bench . -benchmem ./...

## bench-vmm: the devices against QEMU's, in one lab; docs/measuring.md
bench-vmm: setup build
	scripts/setup-virtiofsd
	go build -ldflags '-s -w' -o bin/vmmbench-guest ./internal/vmmbench/guest
	go build -ldflags '-s -w' -o bin/vmmbench ./internal/vmmbench/bench
	bin/duplex kernel fetch
	bin/vmmbench $(BENCHFLAGS)

## bench-container: the start of a container against crun's, runc's and bubblewrap's, as root; docs/start-time.md
bench-container: setup build
	scripts/setup-startbench
	go build -ldflags '-s -w' -o bin/startbench ./internal/startbench
	bin/startbench $(BENCHFLAGS)

## test-kernel: the guest kernel of `duplex kernel build` under real workloads; docs/kernel.md
test-kernel: setup build
	scripts/test-kernel $(KERNEL)

## reproduce-kernel: the minimal guest kernel once more, elsewhere, must be the same bytes
reproduce-kernel: build
	scripts/kernel-reproduce --minimal

## bench-boot: from exec to user space, against QEMU; docs/boot-time.md
bench-boot: setup build bootbench
	bin/duplex kernel fetch
	bin/bootbench $(BENCHFLAGS)

## boot-budget: make what a boot takes now its budget, which `make test` holds it to
boot-budget: setup build bootbench
	bin/duplex kernel fetch
	bin/bootbench -budget internal/vmmbench/bootbench/budget.json -write

bootbench:
	go build -ldflags '-s -w' -o bin/bootbench-guest ./internal/vmmbench/bootbench/guest
	go build -ldflags '-s -w' -o bin/bootbench ./internal/vmmbench/bootbench/bench

clean:
	rm -rf bin $(EMBED)/*.zst $(EMBED)/*.sum $(EMBED)/../builtinid/files/*.sum
