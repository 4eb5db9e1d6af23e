package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestParameter(t *testing.T) {
	const line = "quiet duplex.transport=vsock a=b=c duplex.transport=serial x=\n"
	for key, want := range map[string]string{agentproto.TransportKey: "vsock", "a": "b=c", "x": "", "quiet": "", "none": ""} {
		if got := parameter(line, key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

func TestLoadModules(t *testing.T) {
	dir := t.TempDir()
	must(t, loadModules(dir)) // no list, nothing to load
	must(t, os.WriteFile(filepath.Join(dir, "order"), []byte("a.ko\n"), 0o644))
	if err := loadModules(dir); err == nil || !strings.Contains(err.Error(), "a.ko") {
		t.Errorf("a missing module: %v", err)
	}
}

// A late module that is built in has an empty list; without one, the kernel has
// no such module.
func TestLoadLate(t *testing.T) {
	dir := t.TempDir()
	if err := loadLate(dir, "virtiofs"); err == nil || !strings.Contains(err.Error(), "no virtiofs") {
		t.Errorf("no list: %v", err)
	}
	list := filepath.Join(dir, "late-virtiofs")
	if err := os.WriteFile(list, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadLate(dir, "virtiofs"); err != nil {
		t.Errorf("built in: %v", err)
	}
	if err := os.WriteFile(list, []byte("fuse.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := loadLate(dir, "virtiofs"); err == nil || !strings.Contains(err.Error(), "fuse.ko") {
		t.Errorf("module missing: %v", err)
	}
}

func TestSerialPorts(t *testing.T) {
	dir := t.TempDir()
	for port, name := range map[string]string{"vport0p1": "duplex.control\n", "vport0p2": "duplex.stdin\n"} {
		must(t, os.Mkdir(filepath.Join(dir, port), 0o755), os.WriteFile(filepath.Join(dir, port, "name"), []byte(name), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "vport0p3"), 0o755)) // not announced yet
	got, err := serialPorts(dir)
	if err != nil || len(got) != 2 || got["duplex.control"] != "vport0p1" || all(got) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBlockDevice(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "vda"), 0o755), os.Mkdir(filepath.Join(dir, "vdb"), 0o755),
		os.WriteFile(filepath.Join(dir, "vdb", "serial"), []byte("root"), 0o644))
	for id, want := range map[string]string{"root": "/dev/vdb", "vda": "/dev/vda"} {
		if got, err := blockDevice(dir, id); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", id, got, err, want)
		}
	}
}

// The workload's stdin ends when as many bytes have come as the host sent,
// whichever of the two is known first.
func TestInputEnds(t *testing.T) {
	for name, endFirst := range map[string]bool{"end first": true, "bytes first": false} {
		t.Run(name, func(t *testing.T) {
			fromHost, host, err := os.Pipe()
			must(t, err)
			workload, to, err := os.Pipe()
			must(t, err)
			in := startInput(fromHost, to, nil)
			if endFirst {
				in.end(5)
			}
			_, err = host.WriteString("hello")
			must(t, err)
			got := make([]byte, 5)
			_, err = io.ReadFull(workload, got)
			must(t, err)
			if !endFirst {
				in.end(5)
			}
			rest, err := io.ReadAll(workload)
			if err != nil || string(got) != "hello" || len(rest) != 0 {
				t.Errorf("%q, then %q, %v", got, rest, err)
			}
			must(t, host.Close(), workload.Close())
		})
	}
}

func TestOutputCounts(t *testing.T) {
	from, child, err := os.Pipe()
	must(t, err)
	host, to, err := os.Pipe()
	must(t, err)
	out := startOutput(from, to)
	data := bytes.Repeat([]byte("x"), 200_000)
	go func() {
		_, _ = child.Write(data)
		_ = child.Close()
	}()
	got := make([]byte, len(data))
	_, err = io.ReadFull(host, got)
	<-out.done
	if err != nil || out.sent.Load() != uint64(len(data)) || !bytes.Equal(got, data) {
		t.Errorf("sent %d of %d, %v", out.sent.Load(), len(data), err)
	}
}

// Only regular files that are new or changed come back, each once.
func TestSend(t *testing.T) {
	dir := t.TempDir()
	upper := filepath.Join(dir, "upper")
	changed, same := filepath.Join(dir, "changed"), filepath.Join(dir, "same")
	must(t, os.MkdirAll(filepath.Join(upper, "sub"), 0o755),
		os.WriteFile(filepath.Join(upper, "sub", ".hidden"), []byte("new"), 0o640),
		os.WriteFile(filepath.Join(upper, ".top"), []byte("top"), 0o600),
		os.Symlink("x", filepath.Join(upper, "link")),
		os.Mkdir(filepath.Join(upper, "cache"), 0o755),
		os.WriteFile(filepath.Join(upper, "cache", "big"), []byte("big"), 0o600),
		os.WriteFile(changed, []byte("1"), 0o600), os.WriteFile(same, []byte("1"), 0o600))
	root, err := os.OpenRoot(upper)
	must(t, err)
	c := &carried{back: []string{"/carried", "/carried", "/nothing"}, skip: []string{"/carried/cache"}, root: root,
		upper: map[string]*os.Root{"/carried": root}, made: map[string]stamp{}}
	must(t, c.remember(changed), c.remember(same), os.Remove(changed), os.WriteFile(changed, []byte("22"), 0o600))
	var b bytes.Buffer
	must(t, c.send(&b))
	var got []string
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		got = append(got, h.Name+"="+string(data))
	}
	slices.Sort(got)
	want := []string{"carried/.top=top", "carried/sub/.hidden=new", changed[1:] + "=22"}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestConnectRefuses(t *testing.T) {
	if l, err := connect("carrier pigeon"); err == nil {
		t.Errorf("got %v", l)
	}
}

func TestNoLimits(t *testing.T) {
	if dir, err := limit(workload.Resources{MemoryBytes: 1 << 30}); dir != nil || err != nil {
		t.Errorf("memory is the machine's size: %v, %v", dir, err)
	}
}

func TestRenewMachineID(t *testing.T) {
	dir := t.TempDir()
	const id = "0123456789abcdef0123456789abcdef"
	file, link, other := filepath.Join(dir, "machine-id"), filepath.Join(dir, "link"), filepath.Join(dir, "other")
	must(t, os.WriteFile(file, []byte("of the image\n"), 0o444), os.WriteFile(other, []byte("other"), 0o644), os.Symlink(other, link))
	for _, path := range []string{file, link, filepath.Join(dir, "none")} {
		must(t, renewMachineID(path, id))
	}
	for path, want := range map[string]string{file: id + "\n", other: "other"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", filepath.Base(path), got, err, want)
		}
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 3 {
		t.Errorf("files %v, %v: an image without a machine id got one", names, err)
	}
}

// A stage is only for the root it was made with, and a start message must agree
// with what the machine is.
func TestStage(t *testing.T) {
	s := &stage{device: "rootfs"}
	if _, err := s.enterRoot("another"); err == nil {
		t.Error("another root was taken")
	}
	for name, err := range map[string]error{
		"a clone's message for a booted machine": becomeClone(&agentproto.Start{Clone: agentproto.NewClone()}, nil),
		"a plain message for a restored machine": becomeClone(&agentproto.Start{}, s),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	must(t, becomeClone(&agentproto.Start{}, nil))
}
