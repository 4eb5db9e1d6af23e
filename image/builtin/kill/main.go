// Command kill signals processes: kill [-SIGNAL | -s SIGNAL] PID..., where SIGNAL is a
// number or a name with or without SIG; kill -l lists the names.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const lastSignal = 31

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "kill:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	sig := unix.SIGTERM
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name := args[0][1:]
		args = args[1:]
		switch {
		case name == "l":
			for s := syscall.Signal(1); s <= lastSignal; s++ {
				fmt.Println(strings.TrimPrefix(unix.SignalName(s), "SIG"))
			}
			return nil
		case name == "s" && len(args) > 0:
			name, args = args[0], args[1:]
		}
		var err error
		if sig, err = parse(name); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		return errors.New("no process named")
	}
	var errs error
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err == nil {
			err = unix.Kill(pid, sig)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", arg, err))
		}
	}
	return errs
}

func parse(name string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	upper := "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if sig := unix.SignalNum(upper); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("%s: no such signal", name)
}
