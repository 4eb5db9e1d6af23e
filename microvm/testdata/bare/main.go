// Command bare is the init of the guests that TestGuestBoot boots: a kernel with
// nothing but the drivers. It does what bare=ACTION of the kernel's command line
// says, prints what it found on the serial port, and powers off.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var actions = map[string]func() error{
	"echo":    echo,
	"button":  button,
	"disk":    disk,
	"vsock":   sockets,
	"fs":      share,
	"console": hvc,
	"balloon": balloon,
	"net":     network,
	"flood":   flood,
	"attack":  attack,
}

func main() {
	for _, m := range []struct{ source, target, kind string }{
		{"dev", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Println("bare: mount", m.target, err)
		}
	}
	action := os.Getenv("bare")
	err := func() error {
		if action != "attack" { // which needs the devices' registers unclaimed
			if err := modules(); err != nil {
				return err
			}
		}
		do, ok := actions[action]
		if !ok {
			return errors.New("unknown action")
		}
		return do()
	}()
	if err != nil {
		fmt.Printf("bare: %s: FAILED: %v\n", action, err)
	} else {
		fmt.Printf("bare: %s: ok\n", action)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func modules() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

// await retries until f succeeds, for devices that come up by themselves.
func await[T any](f func() (T, error)) (T, error) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		v, err := f()
		if err == nil || time.Now().After(end) {
			return v, err
		}
	}
}

// byGlob opens the one file that matches, when it is there.
func byGlob(pattern string, flags int) (*os.File, error) {
	return await(func() (*os.File, error) {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			return nil, fmt.Errorf("no %s: %v", pattern, err)
		}
		return os.OpenFile(names[0], flags, 0)
	})
}
