package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/kernel"
)

// builderEnv makes a process of this test build from the source that it names, with
// the signals of the command line.
const builderEnv = "DUPLEX_TEST_BUILD"

func TestMain(m *testing.M) {
	dir := os.Getenv(builderEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	_, err := Build(ctx, Options{Source: dir}, func(step string, _ float64) { fmt.Println(step) })
	fmt.Println(err)
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// slowBuilder starts a process that builds from dir and returns once the compiler
// runs, which would take a quarter of an hour, with that one's process id.
func slowBuilder(t *testing.T, cache, dir string) (cmd *exec.Cmd, out *bufio.Scanner, sleeper int) {
	t.Helper()
	work := filepath.Join(cache, "kernel-build")
	if err := os.MkdirAll(work, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "slow"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), builderEnv+"="+dir)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out = bufio.NewScanner(pipe)
	for !strings.HasPrefix(out.Text(), "compile") {
		if !out.Scan() {
			t.Fatalf("it ended: %v", cmd.Wait())
		}
	}
	for sleeper == 0 && t.Context().Err() == nil { // make starts it right after saying so
		text, _ := os.ReadFile(filepath.Join(work, "sleeper"))
		sleeper, _ = strconv.Atoi(strings.TrimSuffix(string(text), "\n"))
	}
	return cmd, out, sleeper
}

// gone says whether a process has ended: a killed one process whose parent is killed too may be a zombie still.
func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

func TestInterruptedBuildLeavesNothing(t *testing.T) {
	cache := machine(t)
	cmd, out, sleeper := slowBuilder(t, cache, tree(t, nil))
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var last string
	for out.Scan() {
		last = out.Text()
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.HasSuffix(last, context.Canceled.Error()) {
		t.Errorf("it ended with %v and said %q", err, last)
	}
	if !gone(sleeper) {
		t.Errorf("compiler %d still runs", sleeper)
	}
	wantClean(t, cache)
	wantNoKernel(t)
}

// One kernel is built while another one is.
func TestBuildsOfOtherKernelsDoNotWait(t *testing.T) {
	cache := machine(t)
	cmd, _, sleeper := slowBuilder(t, cache, tree(t, nil))
	if err := os.Remove(filepath.Join(cache, "kernel-build", "slow")); err != nil {
		t.Fatal(err)
	}
	k, err := Build(t.Context(), Options{Source: tree(t, nil), Minimal: true}, nil)
	if err != nil || !strings.HasPrefix(k.Name, "minimal-") {
		t.Errorf("%+v, %v", k, err)
	}
	if gone(sleeper) {
		t.Error("the first build did not go on")
	}
	if left, err := filepath.Glob(filepath.Join(cache, "kernel-build", "*", workName)); err != nil || len(left) != 1 {
		t.Errorf("working directories %q, %v", left, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the first build ended well")
	}
	wantClean(t, cache)
}

// What a killed build left is not used: neither while its compiler, which nobody
// told, still writes there, nor afterwards.
func TestBuildAfterAKilledOne(t *testing.T) {
	cache := machine(t)
	dir := tree(t, nil)
	cmd, _, sleeper := slowBuilder(t, cache, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended well")
	}
	wantNoKernel(t)
	left, err := filepath.Glob(filepath.Join(cache, "kernel-build", "*", workName))
	if err != nil || gone(sleeper) || len(left) != 1 {
		t.Fatal("nothing was left, so nothing is tested")
	}
	if err := os.Remove(filepath.Join(cache, "kernel-build", "slow")); err != nil {
		t.Fatal(err)
	}
	waited := false
	k, err := Build(t.Context(), Options{Source: dir}, func(step string, _ float64) {
		switch {
		case step == "wait for another build":
			waited = true
			if err := unix.Kill(sleeper, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		case !waited:
			return
		case !gone(sleeper):
			t.Errorf("%q while compiler %d runs", step, sleeper)
		}
	})
	if err != nil || !waited {
		t.Fatalf("%v; waited: %v", err, waited)
	}
	if found, err := kernel.Find("duplex"); err != nil || found.Name != k.Name {
		t.Errorf("Find: %+v, %v", found, err)
	}
	wantClean(t, cache)
}
