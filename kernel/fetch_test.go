package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

// fetchEnv makes the test binary fetch and report on stdout instead of testing.
const fetchEnv = "DUPLEX_TEST_FETCH"

func TestMain(m *testing.M) {
	if os.Getenv(fetchEnv) == "" {
		os.Exit(m.Run())
	}
	k, err := Fetch(context.Background(), func(step string, fraction float64) {
		if step == "unpack" && fraction > 0.2 {
			_, _ = os.Stdout.WriteString("unpacking\n")
		}
	})
	if err != nil {
		_, _ = os.Stdout.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	_, _ = os.Stdout.WriteString("fetched " + k.Name + "\n")
	os.Exit(0)
}

// needsArchive leaves a test that downloads packages out of the quick part.
func needsArchive(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads a kernel: make test runs it")
	}
}

// fetcher is this test binary as a process that fetches into cache; when the
// tests run as root it is nobody's, for fetching must need no root.
func fetcher(t *testing.T, cache string) *exec.Cmd {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), "fetcher")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fetchEnv+"=1", "DUPLEX_CACHE="+cache)
	if os.Geteuid() == 0 {
		const nobody = 65534
		if err := os.Chown(cache, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		// The test's directories are root's with mode 0755 below a 0700 one.
		for dir := filepath.Dir(exe); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// A fetch killed in the middle leaves a staging directory. The next one removes
// it; of several at once, one downloads and the others wait.
func TestFetchAfterKillAndAtOnce(t *testing.T) {
	needsArchive(t)
	cache := t.TempDir()
	cmd := fetcher(t, cache)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 9)
	_, err = io.ReadFull(out, first)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || string(first) != "unpacking" {
		t.Fatalf("the fetch said %q, %v", first, err)
	}
	if left := entriesOf(t, filepath.Join(cache, "kernels")); len(left) != 1 || !strings.HasPrefix(left[0], stagingPrefix) {
		t.Fatalf("after the kill: %q, want a staging directory", left)
	}

	t.Setenv("DUPLEX_CACHE", cache)
	var unpacked atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			k, err := Fetch(t.Context(), func(step string, fraction float64) {
				if step == "unpack" && fraction == 1 {
					unpacked.Add(1)
				}
			})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := k.Modules("erofs"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := unpacked.Load(); n != 1 {
		t.Errorf("unpacked %d times", n)
	}
	list, err := List()
	if left := entriesOf(t, filepath.Join(cache, "kernels")); err != nil || len(list) != 1 || len(left) != 1 || left[0] != list[0].Name {
		t.Errorf("listed %v, %v; in the cache %q", list, err, left)
	}
}

func TestCancelledFetchLeavesNothing(t *testing.T) {
	needsArchive(t)
	for _, step := range []string{"download", "unpack"} {
		t.Run(step, func(t *testing.T) {
			cache := t.TempDir()
			t.Setenv("DUPLEX_CACHE", cache)
			ctx, cancel := context.WithCancel(t.Context())
			_, err := Fetch(ctx, func(s string, _ float64) {
				if s == step {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want canceled", err)
			}
			if left := entriesOf(t, filepath.Join(cache, "kernels")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// A machine whose package lists are missing, or name a package that the mirror
// has no more, is no obstacle.
func TestFetchWithoutPackageLists(t *testing.T) {
	needsArchive(t)
	cache := t.TempDir()
	t.Setenv("DUPLEX_CACHE", cache)
	t.Setenv("APT_CONFIG", writeTemp(t, "apt.conf", []byte(`Dir::State::lists "/nonexistent"; `+noAptCache)))
	var steps []string
	k, err := Fetch(t.Context(), func(step string, _ float64) {
		if len(steps) == 0 || steps[len(steps)-1] != step {
			steps = append(steps, step)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(steps, ", "); got != "update package lists, download, unpack" {
		t.Errorf("steps: %s", got)
	}
	if left := entriesOf(t, filepath.Join(cache, "kernels")); len(left) != 1 || left[0] != k.Name {
		t.Errorf("in the cache: %q", left)
	}
}

const noAptCache = `Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; `

func TestFetchErrorsHaveRemedies(t *testing.T) {
	noSources := writeTemp(t, "apt.conf", []byte(noAptCache+
		`Dir::State::lists "/nonexistent"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "/dev/null";`))
	for name, c := range map[string]struct{ key, value, remedy string }{
		"no apt":     {"PATH", t.TempDir(), "--kernel FILE"},
		"no sources": {"APT_CONFIG", noSources, "apt-get update"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			t.Setenv("DUPLEX_CACHE", cache)
			t.Setenv(c.key, c.value)
			_, err := Fetch(t.Context(), nil)
			var werr *workload.Error
			if !errors.As(err, &werr) || !strings.Contains(werr.Remedy, c.remedy) {
				t.Errorf("got %v, want a remedy with %q", err, c.remedy)
			}
			if left, _ := filepath.Glob(filepath.Join(cache, "kernels", ".*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestFetchIntoNothingWritable(t *testing.T) {
	file := writeTemp(t, "file", nil)
	t.Setenv("DUPLEX_CACHE", file)
	_, err := Fetch(t.Context(), nil)
	var werr *workload.Error
	if !errors.As(err, &werr) || !strings.Contains(err.Error(), file) || werr.Remedy != "" {
		t.Errorf("got %v, want an error that names %s and does not blame apt", err, file)
	}
}

func entriesOf(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestUnpackerTakesOnlyWhatIsWanted(t *testing.T) {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range []string{
		"./boot/vmlinuz-1", "boot/config-1", "./usr/lib/modules/1/modules.builtin", "./lib/modules/1/kernel/a.ko",
		"./boot/vmlinuz-2", "./boot/System.map-1", "./lib/modules/2/kernel/b.ko", "./etc/passwd",
		"../../boot/config-9", "./lib/modules/1/../../../../etc/shadow",
	} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 4, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte("data")); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []tar.Header{
		{Name: "./lib/modules/1/out", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		{Name: "./lib/modules/1/hard", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
	} {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	u := unpacker{root: root, release: "1", expect: 100}
	if err := u.all(tar.NewReader(&archive)); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	var got []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			got = append(got, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "config modules/kernel/a.ko modules/modules.builtin vmlinuz"; strings.Join(got, " ") != want {
		t.Errorf("unpacked %q, want %q", got, want)
	}
}

func TestUnpackIsBounded(t *testing.T) {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: "./lib/modules/1/huge.ko", Mode: 0o644, Size: 1 << 40, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	u := unpacker{root: root, release: "1", expect: 100}
	if err := u.all(tar.NewReader(&archive)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file of 1 TiB: %v", err)
	}
}
