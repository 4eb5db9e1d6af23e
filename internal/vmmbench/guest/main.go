// Guest is the /init of the guests that are measured: it loads the modules it
// finds in /modules, runs the suites that the kernel command line names, prints
// a vmmbench.Line on the serial port for each step, and powers off.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// serial is where lines go.
var serial *os.File

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: is the init of a virtual machine, nothing else")
		os.Exit(2)
	}
	if err := run(); err != nil {
		say(vmmbench.Line{Step: vmmbench.Failed, Name: "init", Text: err.Error()})
	}
	say(vmmbench.Line{Step: vmmbench.Done})
	time.Sleep(10 * vmmbench.Settle) // the driver looks at the monitor's memory
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	// A thread that waits in a system call must not keep others from running.
	runtime.GOMAXPROCS(2 * busyThreads)
	if err := setUp(); err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	say(vmmbench.Line{Step: vmmbench.Version, Text: "Linux " + unix.ByteSliceToString(u.Release[:])})
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if err := measure(vmmbench.Idle, func() (int64, int64, error) { return 1, 0, nil }); err != nil {
		return err
	}
	for word := range strings.FieldsSeq(string(line)) {
		list, ok := strings.CutPrefix(word, vmmbench.SuitesKey+"=")
		if !ok {
			continue
		}
		for s := range strings.SplitSeq(list, ",") {
			runSuite(vmmbench.Suite(s))
		}
	}
	return nil
}

func runSuite(s vmmbench.Suite) {
	var err error
	switch s {
	case vmmbench.Blk:
		err = blkSuite()
	case vmmbench.Net:
		err = netSuite()
	case vmmbench.FS:
		err = fsSuite()
	default:
		err = errors.New("no such suite")
	}
	if err != nil {
		say(vmmbench.Line{Step: vmmbench.Failed, Name: string(s), Text: err.Error()})
	}
}

func say(l vmmbench.Line) { _, _ = fmt.Fprintf(serial, "%s\n", l) }

// measure runs f once between two lines, and says how many operations and bytes
// it did in what time.
func measure(name string, f func() (ops, bytes int64, err error)) error {
	runtime.GC() // none in the middle
	say(vmmbench.Line{Step: vmmbench.Begin, Name: name})
	time.Sleep(vmmbench.Settle)
	began := time.Now()
	ops, bytes, err := f()
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	time.Sleep(vmmbench.Settle / 4) // the end is not part of what is counted
	say(vmmbench.Line{Step: vmmbench.End, Name: name,
		Measure: vmmbench.Measure{Ops: ops, Bytes: bytes, Ns: took.Nanoseconds()}})
	time.Sleep(vmmbench.Settle)
	return nil
}
