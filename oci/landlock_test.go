package oci

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/confine"
)

// What Landlock stops, and the other layers do not; with the annotation it does
// not either.
func TestLandlock(t *testing.T) {
	abi := confine.LandlockABI()
	for _, off := range []bool{false, true} {
		bundle := func(args ...string) *bundle {
			b := likeDocker(t, args...)
			if off {
				b.spec.Annotations = map[string]string{LandlockAnnotation: "off"}
			}
			return b
		}
		b := bundle("ioctl", "/nodes/random")
		nodes := t.TempDir() // of its own: temporary files may be where devices do not open
		b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/nodes", Type: "bind", Source: nodes, Options: []string{"bind", "dev"}})
		must(t, unix.Mount("nodes", nodes, "tmpfs", 0, ""))
		t.Cleanup(func() { must(t, unix.Unmount(nodes, unix.MNT_DETACH)) })
		must(t, unix.Mknod(filepath.Join(nodes, "random"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 8))))
		if out := b.output(t); strings.Contains(out, "ioctl: <nil>") != (off || abi < 5) {
			t.Errorf("off %v: an ioctl of a device outside /dev: %s", off, out)
		}
		b.spec.Process.Args = []string{"/bin/work", "ioctl", "/dev/random"}
		contains(t, b.output(t), "ioctl: <nil>")
		// A process of the container reads the environment of what is executed in it.
		b = bundle("spy")
		b.save(t)
		out, err := os.CreateTemp(t.TempDir(), "out")
		must(t, err)
		c, err := Create(t.Context(), b.options(t, out))
		must(t, err)
		must(t, c.Start(t.Context()))
		c.Close()
		p := c.ExecProcess([]string{"/bin/work", "wait"})
		p.Env = append(p.Env, "SECRET=x")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.Exec(ctx, ExecOptions{Process: p, Detach: true})
		}()
		await(t, out, "secret:")
		text, err := os.ReadFile(out.Name())
		must(t, err)
		if strings.Contains(string(text), "secret: true") != (off || abi < 5) {
			t.Errorf("off %v: the secret of exec: %s", off, text)
		}
		cancel()
		<-done
		d, err := Open(b.root, c.ID, true)
		must(t, err)
		must(t, d.Delete(t.Context(), true, nil))
		b.nothingLeft(t)
	}
}

// The domain is left out where it would forbid what the bundle is for.
func TestLandlockPlan(t *testing.T) {
	for name, tt := range map[string]struct {
		change         func(s *specs.Spec)
		files, sockets bool
	}{
		"docker": {func(*specs.Spec) {}, true, false},
		"may mount": {func(s *specs.Spec) {
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
		}, false, false},
		"no filter": {func(s *specs.Spec) { s.Linux.Seccomp = nil }, false, false},
		"a filter that allows mount": {func(s *specs.Spec) {
			s.Linux.Seccomp.Syscalls = append(s.Linux.Seccomp.Syscalls, specs.LinuxSyscall{Names: []string{"mount"}, Action: specs.ActAllow})
		}, false, false},
		"the host's network":         {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:1] }, true, true},
		"the host's network by path": {func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/proc/self/ns/net" }, true, true},
		"the host's processes":       {func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] }, false, false},
		"another's processes":        {func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/self/ns/pid" }, false, false},
		"switched off":               {func(s *specs.Spec) { s.Annotations = map[string]string{LandlockAnnotation: "off"} }, false, false},
	} {
		b := likeDocker(t, "exit", "0")
		tt.change(b.spec)
		p, err := processPlan(b.spec.Process, 0)
		must(t, err)
		w := landlock(b.spec, p)
		if w == nil {
			w = &confine.Workload{}
		}
		if w.Files != tt.files || w.Sockets != tt.sockets {
			t.Errorf("%s: %+v", name, w)
		}
	}
	s := Example()
	s.Annotations = map[string]string{LandlockAnnotation: "maybe"}
	if err := validate(s); err == nil {
		t.Error("an annotation that says neither on nor off was taken")
	}
}
