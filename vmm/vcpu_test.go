package vmm

import (
	"runtime"
	"testing"
)

// Each vCPU gets a P beside those of the rest of the process, and gives it back.
func TestReserve(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	first, second := reserve(1), reserve(2)
	if got, want := runtime.GOMAXPROCS(0), runtime.NumCPU()+3; got < want {
		t.Errorf("GOMAXPROCS %d with 3 vCPUs, want at least %d", got, want)
	}
	first()
	second()
	if n := running.Load(); n != 0 {
		t.Errorf("%d vCPUs still reserved for", n)
	}
}
