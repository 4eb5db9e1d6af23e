package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// guestInit is what this binary does as PID 1 of a guest: it does what the
// kernel command line says (duplextest=..., which the kernel passes on as an
// environment variable) and does not return.
func guestInit() {
	for _, m := range []struct{ source, target, kind string }{
		{"dev", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			fmt.Println("guest: mount", m.target, err)
		}
	}
	action := os.Getenv("duplextest")
	if action == "poweroff" {
		describeGuest()
	}
	fmt.Println("guest: up")
	switch action {
	case "poweroff":
		end(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	case "reboot", "triple":
		end(unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
	case "panic":
		end(os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
	case "spin":
		for {
			_ = unix.Getpid()
		}
	}
	os.Exit(3)
}

func end(err error) {
	fmt.Println("guest: still alive:", err)
	select {}
}

// describeGuest prints what the host's tests look for.
func describeGuest() {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	fmt.Println("clocksource", strings.TrimSpace(read("/sys/devices/system/clocksource/clocksource0/current_clocksource")))
	fmt.Println("svm", strings.Contains(read("/proc/cpuinfo"), " svm "))
	cores, packages := map[string]bool{}, map[string]bool{}
	dirs, _ := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/topology")
	for _, d := range dirs {
		packages[read(d+"/physical_package_id")] = true
		cores[read(d+"/physical_package_id")+read(d+"/core_id")] = true
	}
	fmt.Printf("processors %d, cores %d, packages %d\n", runtime.NumCPU(), len(cores), len(packages))
	for line := range strings.Lines(read("/proc/interrupts")) {
		if f := strings.Fields(line); len(f) > 3 && f[len(f)-1] == "ttyS0" {
			fmt.Println("uart", f[len(f)-2], "interrupts", f[1])
		}
	}
}
