package container

import "github.com/duplex-run/duplex/container/seccomp"

type filterResult struct {
	bpf []byte
	err error
}

// startFilter compiles the seccomp filter while the container's processes
// start.
func startFilter() <-chan filterResult {
	out := make(chan filterResult, 1)
	go func() {
		bpf, err := seccomp.Default(defaultCapNames())
		out <- filterResult{bpf, err}
	}()
	return out
}
