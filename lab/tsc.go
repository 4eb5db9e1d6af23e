package lab

import (
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// rdtsc reads the time-stamp counter of this CPU.
func rdtsc() uint64

// Without -icount the emulated TSC is the host's own (QEMU 7.2,
// cpu_get_host_ticks), with it it counts virtual nanoseconds.
const deterministicTSC = 1_000_000 // kHz

// tscWindow is how long the host's TSC is watched: at 10 ms an error of half a
// microsecond at either end is 100 ppm.
const tscWindow = 10 * time.Millisecond

// measureTSC returns the frequency of the host's TSC in kHz.
//
// The machine is told (tsc_early_khz=), because it cannot find out: a kernel
// calibrates against the PIT, and on a busy host the emulation stalls longer
// than the calibration tolerates. It then gives up on the TSC, has no other
// clock source on this machine, and boots no further.
func measureTSC() int64 {
	t0, c0 := tscAndTime()
	time.Sleep(tscWindow)
	t1, c1 := tscAndTime()
	return int64(float64(t1-t0) / float64(c1-c0) * 1e6)
}

// tscAndTime reads both clocks at one moment, as nearly as five attempts get.
func tscAndTime() (tsc uint64, ns int64) {
	best := int64(1 << 62)
	for range 5 {
		before := workload.Now()
		t := rdtsc()
		after := workload.Now()
		if after-before < best {
			best, tsc, ns = after-before, t, before+(after-before)/2
		}
	}
	return tsc, ns
}
