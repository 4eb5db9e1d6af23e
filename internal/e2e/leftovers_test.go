package e2e

import (
	"bufio"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/duplex-run/duplex/internal/testutil/freeport"
	"github.com/duplex-run/duplex/internal/testutil/netns"
	"github.com/duplex-run/duplex/network/bridge"
)

// footprint is everything of runs with this runtime directory that can be seen on
// this machine. Other tests run beside these: what is theirs is not looked at.
func footprint(t *testing.T, runtime string) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(runtime)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".runs" {
			out = append(out, "run directory "+e.Name())
		}
	}
	records, _ := os.ReadDir(filepath.Join(runtime, ".runs"))
	for _, e := range records {
		out = append(out, "record "+e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, runtime) || strings.Contains(line, os.Getenv("DUPLEX_CACHE")) {
			out = append(out, "mount "+line)
		}
	}
	out = append(out, groups(t)...)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(p, "environ"))
		text := strings.ReplaceAll(string(line), "\x00", " ")
		if err == nil && (strings.Contains(text, "/helper sleep") || strings.HasPrefix(text, "qemu-system")) && !strings.HasPrefix(text, bin) &&
			strings.Contains(text+string(environ), runtime) {
			out = append(out, "process "+text)
		}
	}
	tmp, err := filepath.Glob(filepath.Join(os.TempDir(), "duplex-*")) // TestMain's own
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tmp {
		if !strings.Contains(f, "duplex-e2e-") {
			out = append(out, "temp "+f)
		}
	}
	slices.Sort(out)
	return out
}

// duplex is killed in whatever phase it is in, twenty times; what the kernel
// does not take with it, the next run does.
func TestKilledRunsLeaveNothing(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", runtime)
	random := rand.New(rand.NewPCG(1, 2))
	each(t, func(t *testing.T, run []string) {
		whole := timeOf(t, run)
		before := footprint(t, runtime)
		for i := range 20 {
			after := time.Duration(random.Int64N(int64(whole)))
			cmd := exec.Command(bin, concat(run, []string{"--memory=128m", image, "/helper", "sleep", runtime})...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			kill.Stop()
			if err == nil || cmd.ProcessState.ExitCode() >= 0 {
				t.Fatalf("run %d ended by itself, before kill -9 after %v: %v", i, after, err)
			}
		}
		if r := duplex(t, nil, concat(run, []string{image, "/helper", "exit", "0"})...); r.status != 0 || r.stderr != "" {
			t.Errorf("the run after: status %d, stderr %q", r.status, r.stderr)
		}
		if after := footprint(t, runtime); !slices.Equal(before, after) {
			t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
}

// timeOf measures one run up to its workload, and a quarter more.
func timeOf(t *testing.T, run []string) time.Duration {
	t.Helper()
	start := time.Now()
	if r := duplex(t, nil, concat(run, []string{image, "/helper", "exit", "0"})...); r.status != 0 {
		t.Fatalf("status %d, %s", r.status, r.stderr)
	}
	return time.Since(start) * 5 / 4
}

// Every way to end leaves nothing behind, without help of the next run.
func TestEndedRunsLeaveNothing(t *testing.T) {
	runtime := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", runtime)
	each(t, func(t *testing.T, run []string) {
		before := footprint(t, runtime)
		duplex(t, nil, concat(run, []string{"--memory=128m", image, "/helper", "exit", "3"})...)
		duplex(t, nil, concat(run, []string{image, "/no/such"})...)
		duplex(t, nil, concat(run, []string{"--timeout=1s", image, "/helper", "sleep", runtime})...)
		p := startSleep(t, run, runtime)
		if err := p.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		waitStatus(t, p)
		if after := footprint(t, runtime); !slices.Equal(before, after) {
			t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
}

// duplex is killed while a run has a network and a published port; what the kernel
// does not take with it, the next run does, which has the same port.
func TestKilledRunsWithNetworks(t *testing.T) {
	root := os.Geteuid() == 0
	if root && !inLab() && !netns.Run(t) { // the lab is a host of its own
		return
	}
	runtime := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", runtime)
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{"user"}
	if root {
		kinds = append(kinds, "bridge")
	}
	each(t, func(t *testing.T, run []string) {
		before := footprint(t, runtime)
		flags := []string{"-p", "127.0.0.1:" + freeport.On(t, "tcp") + ":80"}
		for _, kind := range kinds {
			killServing(t, concat(run, []string{"--network", kind}, flags), flags[1])
		}
		last := concat(run, []string{"--network", kinds[len(kinds)-1]}, flags)
		if r := duplex(t, nil, concat(last, []string{image, "/helper", "exit", "3"})...); r.status != 3 || r.stderr != "" {
			t.Errorf("the run after: status %d, stderr %q", r.status, r.stderr)
		}
		if after := append(footprint(t, runtime), networks(t)...); !slices.Equal(before, after) {
			t.Errorf("left behind:\n%s\nbefore:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
	if now, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward"); err != nil || string(now) != string(forward) {
		t.Errorf("forwarding is %q, was %q, %v", now, forward, err)
	}
}

// networks is what bridges leave on this host.
func networks(t *testing.T) (out []string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == bridge.Name || strings.HasPrefix(l.Name, "dx") {
			out = append(out, "interface "+l.Name)
		}
	}
	if c, err := nftables.New(); err == nil {
		tables, _ := c.ListTables() // who may not see them has made none
		for _, table := range tables {
			if table.Name == "duplex" {
				out = append(out, "nftables table")
			}
		}
	}
	if _, err := os.Stat("/run/duplex-bridge"); err == nil {
		out = append(out, "the bridge's state")
	}
	return out
}

// killServing kills a run once its port leads to its workload.
func killServing(t *testing.T, run []string, publish string) {
	t.Helper()
	cmd := exec.Command(bin, concat(run, []string{image, "/helper", "serve"})...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
		t.Fatalf("%q, %v", line, err)
	}
	c, err := net.Dial("tcp", strings.TrimSuffix(publish, ":80"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		t.Errorf("the port leads to %q, %v", line, err)
	}
}
