package microvm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/vmm"
)

func TestMemorySize(t *testing.T) {
	for _, c := range []struct {
		res    workload.Resources
		want   uint64
		remedy string
	}{
		{workload.Resources{}, DefaultMemory, ""},
		{workload.Resources{MemoryBytes: MinMemory}, MinMemory, ""},
		{workload.Resources{MemoryBytes: 200_000_000}, 199999488, ""},
		{workload.Resources{MemoryBytes: 1 << 20}, 0, "--memory 96m"},
		{workload.Resources{MemoryBytes: MinMemory - 1}, 0, "--memory 96m"},
	} {
		got, err := memorySize(c.res)
		var own *workload.Error
		if got != c.want || (err != nil) != (c.remedy != "") {
			t.Errorf("%+v: %d, %v", c.res, got, err)
		} else if err != nil && (!errors.As(err, &own) || !strings.Contains(own.Remedy, c.remedy)) {
			t.Errorf("%+v: %v, remedy %q", c.res, err, own.Remedy)
		}
	}
}

// What is wrong with the files is said before KVM is touched, and nothing stays
// open.
func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int64, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	disk := file("disk", 4096, "")
	text := file("text", 0, "not a kernel at all\n")
	for _, c := range []struct {
		name, kernel, disk, want, remedy string
	}{
		{"no kernel", filepath.Join(dir, "none"), disk, "no such file", "duplex kernel fetch"},
		{"text as kernel", text, disk, text, "bzImage or vmlinux"},
		{"zeros as kernel", disk, disk, disk, "bzImage or vmlinux"},
		{"directory as kernel", dir, disk, "not a regular file", ""},
		{"no disk", text, filepath.Join(dir, "none"), "open disk", ""},
		{"odd disk", text, file("odd", 1000, ""), "not a multiple of 512", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := descriptors(t)
			spec := workload.Spec{Argv: []string{"/true"}, Rootfs: workload.Rootfs{EROFS: c.disk}}
			_, err := Runner{Kernel: c.kernel}.Run(t.Context(), spec, workload.Stdio{}, nil)
			var own *workload.Error
			if !errors.As(err, &own) {
				t.Fatalf("%v is no *workload.Error", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(own.Remedy, c.remedy) {
				t.Errorf("%v; remedy %q", err, own.Remedy)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// The words for each way a machine can end.
func TestWhyEnded(t *testing.T) {
	session := errors.New("control stream broke")
	for _, c := range []struct {
		end     ending
		console string
		late    bool
		want    string
	}{
		{ending{exit: vmm.Exit{Reason: vmm.PowerOff}}, "", false, "powered off"},
		{ending{exit: vmm.Exit{Reason: vmm.Reset}}, "", false, "restarted"},
		{ending{exit: vmm.Exit{Reason: vmm.Reset}}, "[ 1.0] Kernel panic - not syncing: Fatal exception\r\n", false, "Kernel panic - not syncing: Fatal exception"},
		{ending{exit: vmm.Exit{Reason: vmm.TripleFault}}, "", false, "triple fault"},
		{ending{exit: vmm.Exit{Reason: vmm.InternalError, Detail: "suberror 1"}}, "", false, "internal error: suberror 1"},
		{ending{exit: vmm.Exit{Reason: vmm.Canceled}}, "", true, "did not come up"},
		{ending{exit: vmm.Exit{Reason: vmm.Canceled}}, "", false, session.Error()},
		{ending{err: errors.New("KVM_RUN: bad")}, "", false, "KVM_RUN: bad"},
	} {
		m := &machine{console: new(console.Tail)}
		m.overdue.Store(c.late)
		_, _ = m.console.Write([]byte(c.console))
		ended := make(chan ending, 1)
		ended <- c.end
		err := m.explain(session, ended)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %q does not say %q", c.end, err, c.want)
		}
		if c.console != "" && !strings.Contains(err.Error(), "console ended with:\n  [ 1.0] Kernel") {
			t.Errorf("no console in %q", err)
		}
	}
}

func TestPrivateMemory(t *testing.T) {
	n, err := privateMemory(strings.NewReader("5581-7ffc ---p 00000000 00:00 0  [rollup]\nRss: 900 kB\nPrivate_Clean:     100 kB\nPrivate_Dirty:      23 kB\nPrivate_Hugetlb: 7 kB\n"))
	if n != 123<<10 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := privateMemory(strings.NewReader("Private_Dirty: much kB\n")); err == nil {
		t.Error("nonsense was taken")
	}
	if n := ownMemory(0); n <= 0 {
		t.Errorf("this process: %d", n)
	}
}
