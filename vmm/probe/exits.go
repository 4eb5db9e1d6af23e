package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// exitRounds of exitsEach exits are timed, and the best counts, as a busy host
// only ever makes them slower.
const (
	exitRounds = 20
	exitsEach  = 200
)

// ExitCost measures what an exit takes that KVM handles by itself, without the
// monitor: the guest's CPUID, from one instruction of the guest to the next. It
// takes some milliseconds on hardware, and longer where KVM is emulated.
func ExitCost() (cost time.Duration, err error) {
	sys, err := kvm.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	m, err := newMachine(sys, codeExits)
	if err != nil {
		return 0, err
	}
	best, rounds := time.Duration(0), 0
	var began time.Time
	failure, err := m.run(stepTime, func(io kvm.IO) bool {
		if !io.Write {
			binary.LittleEndian.PutUint32(io.Data, exitsEach)
			began = time.Now()
			return false
		}
		took := time.Since(began)
		if rounds == 0 || took < best {
			best = took
		}
		rounds++
		return rounds == exitRounds
	})
	if err = errors.Join(err, m.close()); err != nil {
		return 0, err
	}
	if rounds == 0 {
		return 0, fmt.Errorf("measure an exit: %s", failure)
	}
	return best / exitsEach, nil
}
