package oci

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container"
	"github.com/duplex-run/duplex/internal/testutil/attack"
	"github.com/duplex-run/duplex/microvm"
	"github.com/duplex-run/duplex/oci/machine/microvms"
)

// TestMain makes the test binary the program of its own containers, too.
func TestMain(m *testing.M) {
	microvm.Init()
	microvms.Use()
	Init()
	container.Init()
	if len(os.Args) > 4 && os.Args[1] == "oci" {
		os.Exit(guestMain(os.Args[1:]))
	}
	if len(os.Args) > 1 && filepath.Base(os.Args[0]) == "work" {
		os.Exit(work(os.Args[1:]))
	}
	if os.Getenv(envNoTaking) != "" {
		if err := forbidTaking(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// work is what containers of the tests execute.
func work(args []string) int {
	switch args[0] {
	case "exit":
		var code int
		_, _ = fmt.Sscan(args[1], &code)
		return code
	case "cat":
		for _, f := range args[1:] {
			b, err := os.ReadFile(f)
			if err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Printf("%s", b)
		}
		return 0
	case "write":
		fmt.Println(os.WriteFile(args[1], []byte("x"), 0o600))
		return 0
	case "mkdir":
		fmt.Println(os.Mkdir(args[1], 0o755))
		return 0
	case "readlink":
		for _, f := range args[1:] {
			fmt.Println(os.Readlink(f))
		}
		return 0
	case "hook": // FILE LABEL: appends the label and the status it read
		var s specs.State
		err := json.NewDecoder(os.Stdin).Decode(&s)
		f, ferr := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil || ferr != nil {
			fmt.Fprintln(os.Stderr, err, ferr)
			return 1
		}
		_, err = fmt.Fprintf(f, "%s %s\n", args[2], s.Status)
		if err != nil {
			return 1
		}
		return 0
	case "fail":
		fmt.Fprintln(os.Stderr, "of no use")
		return 3
	case "eat":
		for all := [][]byte{}; ; {
			page := make([]byte, 1<<20)
			for i := range page {
				page[i] = 1
			}
			all = append(all, page)
		}
	case "dial":
		conn, err := net.Dial("tcp", args[1])
		if err != nil {
			fmt.Println(err)
			return 1
		}
		_, _ = io.Copy(os.Stdout, conn)
		return 0
	case "terminal": // its size, and the line that is typed
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(ws.Row, ws.Col)
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		fmt.Print("read ", line)
		if err != nil {
			fmt.Println(err)
		}
		return 5
	case "wait":
		_ = unix.Pause() // until it is killed
	default:
		if do, ok := attack.Commands[args[0]]; ok {
			do(args[1:])
			return 0
		}
	}
	return 99
}

// bundle is a bundle of a test, and where its containers' state is.
type bundle struct {
	dir, root string
	name      string // what the ids of its containers begin with
	n         int
	spec      *specs.Spec
	guest     func(context.Context) (Guest, error) // of a microVM
}

// newBundle makes a bundle whose rootfs has /bin/work and whose process runs it
// with args. Needs root, but of microVMs (TestGuestUser): what a user may do in
// containers is tested by package container.
func newBundle(t testing.TB, args ...string) *bundle {
	t.Helper()
	if os.Geteuid() != 0 && *kernelFlag == "" {
		t.Skip("making cgroups and mounts of a bundle takes root; CI runs this as root")
	}
	b := &bundle{dir: t.TempDir(), root: filepath.Join(t.TempDir(), "state"), spec: Example(),
		name: fmt.Sprintf("test-%d-%d", os.Getpid(), bundles.Add(1))}
	must(t, os.MkdirAll(filepath.Join(b.dir, "rootfs", "bin"), 0o755))
	self, err := os.Executable()
	must(t, err)
	work := filepath.Join(b.dir, "rootfs", "bin", "work")
	if os.Link(self, work) != nil {
		data, err := os.ReadFile(self)
		must(t, err)
		must(t, os.WriteFile(work, data, 0o755))
	}
	b.spec.Process.Terminal = false
	b.spec.Process.Args = append([]string{"/bin/work"}, args...)
	b.spec.Root.Readonly = false
	return b
}

// save writes config.json.
func (b *bundle) save(t testing.TB) {
	t.Helper()
	data, err := json.Marshal(b.spec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644))
}

// bundles counts those of the tests, for the ids of their containers.
var bundles atomic.Int32

// options are for a container of b with a new id; its output goes to out.
func (b *bundle) options(t testing.TB, out *os.File) CreateOptions {
	t.Helper()
	b.n++
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = null.Close() })
	o := CreateOptions{Root: b.root, ID: fmt.Sprintf("%s-%d", b.name, b.n), Bundle: b.dir,
		Stdio: [3]*os.File{null, null, null}, Warn: func(s string) { t.Log(s) }, Guest: b.guest}
	if out != nil {
		o.Stdio[1], o.Stdio[2] = out, out
	}
	return o
}

// run runs the bundle to its end and returns its status and output.
func (b *bundle) run(t testing.TB) (int, string, error) {
	t.Helper()
	b.save(t)
	out, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	defer func() { _ = out.Close() }()
	limit := time.Minute
	if b.guest != nil { // an emulated host boots it
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	status, err := Run(ctx, RunOptions{CreateOptions: b.options(t, out)})
	text, rerr := os.ReadFile(out.Name())
	must(t, rerr)
	b.nothingLeft(t)
	return status, string(text), err
}

// output is run of a bundle that has to work.
func (b *bundle) output(t testing.TB) string {
	t.Helper()
	status, text, err := b.run(t)
	if err != nil || status != 0 {
		t.Fatalf("status %d, %v, output %q", status, err, text)
	}
	return text
}

// create makes a container that is deleted with the test.
func (b *bundle) create(t testing.TB) *Container {
	t.Helper()
	b.save(t)
	c, err := Create(t.Context(), b.options(t, nil))
	must(t, err)
	t.Cleanup(func() {
		if d, err := Open(b.root, c.ID, true); err == nil {
			must(t, d.Delete(context.Background(), true, func(s string) { t.Log(s) }))
		}
		b.nothingLeft(t)
	})
	c.Close()
	return c
}

// nothingLeft looks for what containers of b may have left: state, cgroups,
// mounts.
func (b *bundle) nothingLeft(t testing.TB) {
	t.Helper()
	if entries, err := os.ReadDir(b.root); err == nil && len(entries) > 0 {
		t.Errorf("left in the state directory: %v", entries)
	}
	pattern := b.name + "-*"
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*", "/sys/fs/cgroup/*/*"} {
		if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
			t.Errorf("left cgroups: %v", left)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), b.dir) {
		t.Errorf("left mounts below %s", b.dir)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
