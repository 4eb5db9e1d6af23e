// Command helper is the workload of package microvm's tests.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	var n int
	if len(os.Args) > 2 {
		v, _ := strconv.ParseInt(os.Args[2], 0, 64)
		n = int(v)
	}
	switch os.Args[1] {
	case "exit":
		os.Exit(n)
	case "kill":
		defaultAction(unix.SIGSEGV, unix.SIGTERM)
		_ = unix.Kill(os.Getpid(), unix.Signal(n))
		select {}
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "cat":
		check(io.Copy(os.Stdout, os.Stdin))
	case "spam":
		check(spam(n))
	case "both":
		fmt.Fprint(os.Stdout, "to stdout")
		fmt.Fprint(os.Stderr, "to stderr")
	case "balloon":
		check(0, use(96<<20))
		check(io.Copy(io.Discard, os.Stdin))
	case "trap":
		trap()
	case "network":
		network(os.Args[2])
	case "serve":
		serve(os.Args[2])
	case "echo":
		echo()
	case "volumes":
		volumes(os.Args[2:])
	case "size":
		size()
	case "sysrq":
		check(0, os.WriteFile("/proc/sysrq-trigger", []byte(os.Args[2]), 0))
		time.Sleep(time.Hour)
	case "reboot":
		check(0, unix.Reboot(n))
	case "identity":
		check(0, json.NewEncoder(os.Stdout).Encode(whoAmI()))
	case "hang":
		hang()
	case "leave": // a process that keeps the streams
		fmt.Println("left")
		_, err := os.StartProcess("/helper", []string{"/helper", "sleep"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		check(0, err)
	case "limits":
		limits()
	case "where":
		dir, err := os.Getwd()
		check(0, err)
		fmt.Println(os.Getuid(), os.Getgid(), dir, os.Getenv("X"))
	}
}

func check(_ any, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(3)
	}
}

// use touches n bytes of memory, waits for a byte on stdin and frees them.
func use(n int) error {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("used")
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		return err
	}
	return unix.Munmap(b)
}

// spam writes n bytes.
func spam(n int) (int, error) {
	buf := make([]byte, 64<<10)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for n > 0 {
		if _, err := os.Stdout.Write(buf[:min(n, len(buf))]); err != nil {
			return 0, err
		}
		n -= min(n, len(buf))
	}
	return 0, nil
}

// trap says that it waits for a signal, and which came.
func trap() {
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR1, unix.SIGTERM)
	fmt.Println("ready")
	fmt.Println(int((<-got).(syscall.Signal)))
}

// size says the terminal's size, now and after each change, until it has 100
// columns.
func size() {
	change := make(chan os.Signal, 1)
	signal.Notify(change, unix.SIGWINCH)
	for {
		ws, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
		check(0, err)
		fmt.Printf("%dx%d\n", ws.Row, ws.Col)
		if ws.Col == 100 {
			return
		}
		<-change
	}
}

// hang stops the guest's only CPU for good, once a byte has come: a real-time
// task that spins leaves the agent no time.
func hang() {
	fmt.Println("about to hang")
	check(io.ReadFull(os.Stdin, make([]byte, 1)))
	check(0, os.WriteFile("/proc/sys/kernel/sched_rt_runtime_us", []byte("-1"), 0))
	check(0, unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}, 0))
	for {
	}
}
