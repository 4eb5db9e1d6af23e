// Command helper is the workload of the end-to-end tests: it ends, dies, reads,
// writes and lists in the ways that the tests look at.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/listing"
)

// eaten is memory that is in use.
var eaten [][]byte

func main() {
	if len(os.Args) < 2 {
		fail("usage: helper exit|kill|sleep|spam|cat|both|list|touch|get|about|terminal|sysrq|reboot ...")
	}
	defaultAction(unix.SIGHUP, unix.SIGINT, unix.SIGSEGV, unix.SIGTERM, unix.SIGUSR1)
	arg := ""
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch os.Args[1] {
	case "exit":
		os.Exit(number(arg))
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number(arg)))
		time.Sleep(time.Hour)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	case "spam":
		spam(int64(number(arg)))
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fail("cat: %v", err)
		}
	case "both":
		fmt.Fprint(os.Stdout, "to stdout")
		fmt.Fprint(os.Stderr, "to stderr")
	case "list":
		list(arg)
	case "touch":
		if err := os.WriteFile(arg, []byte("x"), 0o600); err != nil {
			fail("touch: %v", err)
		}
	case "get":
		data, err := os.ReadFile(arg)
		if err != nil {
			fail("get: %v", err)
		}
		_, _ = os.Stdout.Write(data)
	case "about":
		about()
	case "terminal":
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fail("terminal: %v", err)
		}
		fmt.Printf("terminal %dx%d\n", ws.Row, ws.Col)
		time.Sleep(time.Hour)
	case "job": // says that it runs, and that it goes on when it was stopped
		on := make(chan os.Signal, 1)
		signal.Notify(on, unix.SIGCONT)
		fmt.Println("it runs")
		for range on {
			fmt.Println("it goes on")
		}
	case "eat": // memory, until it is killed
		for {
			block := make([]byte, 1<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			eaten = append(eaten, block)
		}
	case "serve": // greets who comes to port 80
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			fail("serve: %v", err)
		}
		fmt.Println("serving")
		for {
			c, err := l.Accept()
			if err != nil {
				fail("serve: %v", err)
			}
			_, _ = io.WriteString(c, "hello\n")
			_ = c.Close()
		}
	case "sysrq":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte(arg), 0); err != nil {
			fail("sysrq: %v", err)
		}
		time.Sleep(time.Hour)
	case "reboot":
		if err := unix.Reboot(number(arg)); err != nil {
			fail("reboot: %v", err)
		}
		time.Sleep(time.Hour)
	default:
		fail("helper: unknown command %q", os.Args[1])
	}
}

// spam writes n bytes whose hash the test can compute.
func spam(n int64) {
	line := []byte(strings.Repeat("0123456789abcdef", 4096))
	for n > 0 {
		if int64(len(line)) > n {
			line = line[:n]
		}
		if _, err := os.Stdout.Write(line); err != nil {
			fail("spam: %v", err)
		}
		n -= int64(len(line))
	}
}

// about prints what the flags should have set.
func about() {
	host, _ := os.Hostname()
	cwd, _ := os.Getwd()
	groups, _ := os.Getgroups()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"hostname": host, "cwd": cwd, "uid": os.Getuid(), "gid": os.Getgid(),
		"groups": groups, "env": os.Environ(), "args": os.Args[2:],
		"tty": isTTY(0) && isTTY(1),
	})
}

func isTTY(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// list prints one line a file below root, but for what the isolations mount.
func list(root string) {
	files, err := listing.Of(root, listing.Options{
		SkipXattr: func(name string) bool { return strings.HasPrefix(name, "trusted.overlay.") },
		Skip:      func(rel string) bool { return slices.Contains([]string{"proc", "sys", "dev"}, rel) },
	})
	if err != nil {
		fail("list: %v", err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f, `"." `) { // the root is the overlay's own
			fmt.Println(f)
		}
	}
}

func number(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		fail("helper: %v", err)
	}
	return int(n)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(99)
}
