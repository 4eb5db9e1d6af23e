package container

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/duplex-run/duplex/container/parts/all"
	"github.com/duplex-run/duplex/container/program"
	"github.com/duplex-run/duplex/internal/workload"
)

// TestMain makes the test binary its own init, its own workload (see
// workload_test.go) and, for tests that kill it, its own duplex.
func TestMain(m *testing.M) {
	Init()
	all.Use()
	if len(os.Args) > 1 && filepath.Base(os.Args[0]) == "work" {
		os.Exit(work(os.Args[1:]))
	}
	program.UseOwn()
	if spec := os.Getenv(envRun); spec != "" {
		os.Exit(runAsDuplex(spec))
	}
	os.Exit(ownRuntime(m.Run))
}

// ownRuntime runs f with a runtime directory that no other run on this host uses:
// tests look for what is left there.
func ownRuntime(f func() int) int {
	dir, err := os.MkdirTemp("", "run-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = os.Setenv("DUPLEX_RUNTIME", filepath.Join(dir, "run"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return f()
}

// envRun makes the test binary a duplex that runs the spec it holds, in JSON.
const envRun = "DUPLEX_TEST_SPEC"

func runAsDuplex(text string) int {
	var spec workload.Spec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return workload.StatusError
	}
	exit, err := Runner{}.Run(context.Background(), spec, workload.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return workload.StatusError
	}
	return exit.Status()
}

// newTree makes a root file system whose /bin/work is the test binary.
func newTree(t testing.TB) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"bin", "etc", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(tree, d), 0o755))
	}
	must(t, putWork(filepath.Join(tree, "bin", "work")))
	must(t, os.WriteFile(filepath.Join(tree, "etc", "passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644))
	must(t, os.Chmod(tree, 0o755))
	return tree
}

// putWork links the test binary to path, or copies it where it cannot.
func putWork(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if os.Link(self, path) == nil {
		return nil
	}
	return copyFile(self, path, 0o755)
}

func copyFile(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// newSpec is a spec that runs work with args in tree.
func newSpec(tree string, args ...string) workload.Spec {
	return workload.Spec{
		ID:     newID()[:24] + testTag,
		Rootfs: workload.Rootfs{Tree: tree},
		Argv:   append([]string{"work"}, args...),
		Env:    []string{"PATH=/bin"},
		Cwd:    "/",
	}
}

// result is what a run left.
type result struct {
	exit     workload.Exit
	out, err string
	rec      *workload.Recorder
}

// runIt runs spec to its end; the error of Run fails the test.
func runIt(t testing.TB, spec workload.Spec) result {
	t.Helper()
	r, err := tryRun(t, spec, nil)
	if err != nil {
		t.Fatalf("run %v: %v; stderr %q", spec.Argv, err, r.err)
	}
	return r
}

func tryRun(t testing.TB, spec workload.Spec, change func(*workload.Stdio)) (result, error) {
	t.Helper()
	var out, stderr bytes.Buffer
	r := result{rec: &workload.Recorder{}}
	stdio := workload.Stdio{Out: &out, Err: &stderr}
	if change != nil {
		change(&stdio)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	r.exit, err = Runner{}.Run(ctx, spec, stdio, r.rec)
	r.out, r.err = out.String(), stderr.String()
	return r, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testTag ends the id of every run of this process.
var testTag = newID()[:8]
