package compare

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/compare/isolation"
	"github.com/duplex-run/duplex/internal/workload"
)

// The test binary is also a `duplex run` whose workloads are made up: the
// process, its descriptors, its report and its end are real. The image names
// what it does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		os.Exit(fakeRun(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "snapshot" {
		os.Exit(fakeSnapshot(os.Args[2:]))
	}
	os.Exit(m.Run())
}

type fake struct {
	side  workload.Isolation
	fd    int
	probe bool
	warm  bool
	image string
	args  []string
}

// fakeSnapshot takes what `duplex snapshot create` takes, and no more.
func fakeSnapshot(args []string) int {
	if !slices.Equal(args[:2], []string{"create", "--json"}) || args[len(args)-1] == "no-snapshot" {
		fmt.Fprintln(os.Stderr, "duplex: make the snapshot: no space left on device")
		return workload.StatusError
	}
	if len(args) != 4 || args[2] != "--memory=64m" {
		fmt.Fprintln(os.Stderr, "duplex: unknown flags", args)
		return workload.StatusError
	}
	fmt.Println(`{"name": "0123456789ab", "memory": {"size": 67108864, "data": 67108864}}`)
	return 0
}

func parseFake(args []string) fake {
	var f fake
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		key, value, _ := strings.Cut(args[0], "=")
		switch key {
		case "--vm", "--container":
			f.side = workload.Isolation(key[2:])
		case "--report-fd":
			f.fd, _ = strconv.Atoi(value)
		case "--warm":
			f.warm = true
		case "--probe":
			f.probe = true
		}
		args = args[1:]
	}
	f.image, f.args = args[0], args[1:]
	return f
}

func fakeRun(args []string) int {
	f := parseFake(args)
	var rec workload.Recorder
	for p := workload.PhaseImage; p <= workload.PhaseTornDown; p++ {
		if p == workload.PhaseKernelUp && f.side == workload.Container {
			continue
		}
		rec.Stamp(p)
	}
	usage := workload.Usage{Memory: map[string]int64{"cgroup_peak": 3 << 20}}
	if f.side == workload.VM {
		usage = workload.Usage{Memory: map[string]int64{"vmm_private": 5 << 20}, Exits: map[string]uint64{"io": 120, "mmio": 7}}
		if f.warm {
			usage.Exits["warm"] = 1
		}
	}
	report := workload.Report{Stamps: rec.Stamps(), Usage: usage}
	status := f.behave(&report)
	if f.image != "no-report" {
		out := os.NewFile(uintptr(f.fd), "report")
		_ = json.NewEncoder(out).Encode(report)
	}
	return status
}

func (f fake) behave(report *workload.Report) int {
	if f.probe {
		_ = json.NewEncoder(os.Stdout).Encode(isolation.Observation{
			Schema: isolation.Schema, Kernel: "1.2.3", BootID: "of " + string(f.side),
			Attempts: []isolation.Attempt{{Name: "mount", Allowed: true}},
		})
		return 0
	}
	switch f.image {
	case "exit-3":
		report.Exit.Code = 3
		return 3
	case "broken":
		report.Error = "open /dev/kvm: permission denied"
		return workload.StatusError
	case "broken-vm":
		if f.side == workload.VM {
			report.Error = "KVM_RUN: bad\x1b[2J state"
			return workload.StatusError
		}
	case "no-report":
		fmt.Fprintln(os.Stderr, "panic: something")
		return 2
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
		return 0
	case "pid":
		fmt.Println(os.Getpid())
		return 0
	case "hang":
		f.hang()
	}
	fmt.Println("hello", f.args)
	return 0
}

// hang tells where it is and then takes no notice of the first SIGTERM, as a
// workload may.
func (f fake) hang() {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
	fifo, err := os.OpenFile(f.args[0], os.O_WRONLY, 0)
	if err != nil {
		os.Exit(9)
	}
	_, _ = fmt.Fprintln(fifo, os.Getpid())
	<-ch
	<-ch
	os.Exit(workload.StatusError)
}

// readPID waits for a hanging fake to say its number.
func readPID(t *testing.T, fifo string) int {
	t.Helper()
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
