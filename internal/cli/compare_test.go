package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/compare"
	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"

	"github.com/duplex-run/duplex/internal/runcli"
)

func parseCompare(t *testing.T, args ...string) (*app, *compareFlags, error) {
	t.Helper()
	a := testApp(compareCommand)
	var f compareFlags
	fs := a.Flags()
	f.register(fs)
	if err := a.Parse(fs, args); err != nil {
		return a, &f, err
	}
	_, err := f.check(a)
	return a, &f, err
}

func TestCompareRefuses(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--isolation=vm", "want two"},
		{"--isolation=vm,jail", `"jail"`},
		{"-n 0", "out of range"},
		{"--warmup=-1", "out of range"},
		{"--deterministic --lab=never", "needs the lab"},
		{"--memory=1k", "minimum"},
		{"-t", "unknown shorthand"},
		{"--publish=80:80", "needs --network"},
		{"--publish=x --network=user", "want [IP:]PORT"},
		{"--network=host", "a kernel of its own"},
		{"--network=tap=tap0", "TAP interfaces are for microVMs"},
		{"--network=user,mac=02:00:00:00:00:01 --isolation=vm,container", "want none"},
		{"--network=nat --isolation=container,container-no-network", "want none"},
	} {
		_, _, err := parseCompare(t, strings.Fields(tc.args)...)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.args, err, tc.want)
		}
	}
}

func TestCompareHandsRunItsFlags(t *testing.T) {
	a := testApp(compareCommand)
	var f compareFlags
	fs := a.Flags()
	f.register(fs)
	args := strings.Fields("-n 3 --seed=5 -i -e A=1,2 -e B -m 64m --network user -p 8080:80 --lab=never --json --output x --warmup 0 img cmd --flag")
	if err := a.Parse(fs, args); err != nil {
		t.Fatal(err)
	}
	want := []string{"--lab=never", "--interactive", "--env=A=1,2", "--env=B", "--memory=64m", "--network=user", "--publish=8080:80"}
	got := f.forRun(fs)
	slices.Sort(got[1:])
	slices.Sort(want[1:])
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if ref, cmd := imageArg(fs); ref != "img" || !slices.Equal(cmd, []string{"cmd", "--flag"}) {
		t.Errorf("image %q, command %q", ref, cmd)
	}
}

func TestInnerCompareLeavesFilesToTheOuter(t *testing.T) {
	_, f, err := parseCompare(t, "--output=/nowhere/x", "--deterministic", "--lab=never", "--lab-why=because")
	if err != nil || f.output != "" || f.Lab != "never" {
		t.Errorf("output %q, lab %q, %v", f.output, f.Lab, err)
	}
}

func TestShow(t *testing.T) {
	doc := &compare.Document{
		Schema:   compare.Schema,
		Settings: compare.Settings{Sides: []compare.Column{compare.VM, compare.Container}, N: 1, Order: []int{0, 1}},
		Runs: []compare.Sample{
			{Isolation: compare.VM, Exit: compare.SampleExit{Failed: "no KVM"}},
			{Isolation: compare.Container, Order: 1},
		},
		Summary: compare.Summary{Failed: []int{1, 0}},
	}
	path := filepath.Join(t.TempDir(), "doc.json")
	var out bytes.Buffer
	f := compareFlags{json: true, output: path}
	err := f.show(&app{App: &runcli.App{Out: &out}}, doc)
	if err != cmdline.Status(workload.StatusError) {
		t.Errorf("a side without a sample: %v", err)
	}
	written, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(written, out.Bytes()) || !strings.Contains(out.String(), `"no KVM"`) {
		t.Errorf("--output %q, --json %q, %v", written, out.String(), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left %q, %v", left, err)
	}
	doc.Summary.Failed = []int{0, 0}
	if err := f.show(&app{App: &runcli.App{Out: io.Discard}}, doc); err != nil {
		t.Errorf("both sides measured: %v", err)
	}
	f.output = filepath.Join(t.TempDir(), "absent", "x")
	if err := f.show(&app{App: &runcli.App{Out: io.Discard}}, doc); err == nil {
		t.Error("an output that cannot be written is no error")
	}
}

func TestSpoolIsReadAnew(t *testing.T) {
	f, err := spool(strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for range 2 {
		b, err := os.ReadFile(fdPath(f))
		if err != nil || string(b) != "data" {
			t.Errorf("read %q, %v", b, err)
		}
	}
}
