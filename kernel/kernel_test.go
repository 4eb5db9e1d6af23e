package kernel

import (
	"cmp"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// fetched returns the distribution's kernel, from the user's cache when it has
// it: the real thing that everything here is for.
func fetched(t testing.TB) *Kernel {
	t.Helper()
	if k, err := Find(""); err == nil {
		return k
	}
	k, err := Fetch(t.Context(), nil)
	if err != nil {
		t.Fatalf("these tests need the distribution's kernel: %v", err)
	}
	return k
}

func TestFetchedKernelIsFound(t *testing.T) {
	k := fetched(t)
	if !strings.HasPrefix(k.Name, k.Release+"_") || !strings.HasPrefix(k.Package, "linux-image-"+k.Release) {
		t.Errorf("name %q, release %q, package %q do not fit", k.Name, k.Release, k.Package)
	}
	for _, name := range []string{"", k.Name, k.Release} {
		got, err := Find(name)
		if err != nil {
			t.Fatalf("Find(%q): %v", name, err)
		}
		if *got != *k {
			t.Errorf("Find(%q) = %+v, want %+v", name, got, k)
		}
	}
	got, err := Find(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != k.Image || got.Release != k.Release {
		t.Errorf("Find(path) = %+v", got)
	}
}

func TestFindErrorsHaveRemedies(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	notKernel := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(notKernel, []byte("milk, bread"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "no-such", notKernel, "/no/such"} {
		_, err := Find(name)
		var werr *workload.Error
		if !errors.As(err, &werr) || werr.Remedy == "" {
			t.Errorf("Find(%q): %v, want an error with a remedy", name, err)
		}
	}
}

// fakeKernels puts kernels of these names into a new cache.
func fakeKernels(t *testing.T, names ...string) (root string) {
	t.Helper()
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	root = filepath.Join(os.Getenv("DUPLEX_CACHE"), "kernels")
	for _, name := range names {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		release, _, _ := strings.Cut(name, "_")
		if err := writeMeta(dir, packageRef{"linux-image-" + release, "1"}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, imageName), []byte("image"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFindAmongSeveral(t *testing.T) {
	root := fakeKernels(t, "6.1.0-9-cloud_6.1.1", "6.1.0-56-cloud_6.1.192-2", "6.1.0-56-cloud_6.1.192-10", stagingPrefix+"123")
	for name, want := range map[string]string{ // "": an error
		"":                         "6.1.0-56-cloud_6.1.192-10",
		"6.1.0-9":                  "6.1.0-9-cloud_6.1.1",
		"6.1.0-56-cloud_6.1.192-2": "6.1.0-56-cloud_6.1.192-2",
		"6.1.0-56-cloud":           "",
		"7":                        "",
		".fetch-123":               "",
	} {
		k, err := Find(name)
		if want == "" {
			if err == nil {
				t.Errorf("Find(%q) = %s, want an error", name, k.Name)
			}
			continue
		}
		if err != nil || k.Name != want {
			t.Errorf("Find(%q) = %+v, %v, want %s", name, k, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "6.1.0-9-cloud_6.1.1", metaName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := List()
	var werr *workload.Error
	if !errors.As(err, &werr) || !strings.Contains(werr.Remedy, "6.1.0-9-cloud_6.1.1") {
		t.Errorf("with a broken kernel: %v", err)
	}
	if k, err := Find(writeTemp(t, "vmlinux", smallELF(nil))); err != nil || k.Release != "6.6.6-test" {
		t.Errorf("a file beside a broken kernel: %+v, %v", k, err)
	}
}

// A built kernel is listed, and used when it is named.
func TestBuiltKernelsComeLast(t *testing.T) {
	fakeKernels(t, "6.1.0-9-cloud_6.1.1")
	image := writeTemp(t, "vmlinux", smallELF(nil))
	config := writeTemp(t, "config", []byte("CONFIG_TMPFS=y\n"))
	b := Built{Name: "minimal-6.6.6_0123", Release: "6.6.6-minimal", Source: "linux-source-6.6=6.6.6-1", Vmlinux: image, Config: config}
	for range 2 { // the second replaces the first
		k, err := Install(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if k.Name != b.Name || !k.Built || k.Release != b.Release || k.Package != b.Source || k.ModulesDir != "" {
			t.Errorf("installed %+v", k)
		}
	}
	for name, want := range map[string]string{"": "6.1.0-9-cloud_6.1.1", "minimal": b.Name} {
		if k, err := Find(name); err != nil || k.Name != want {
			t.Errorf("Find(%q) = %+v, %v, want %s", name, k, err, want)
		}
	}
	for name, bad := range map[string]Built{
		"name":      {Name: "../x", Vmlinux: image, Config: config},
		"no kernel": {Name: "bad", Vmlinux: config, Config: config},
	} {
		if k, err := Install(t.Context(), bad); err == nil {
			t.Errorf("%s: installed %+v", name, k)
		}
	}
	if list, err := List(); err != nil || len(list) != 2 {
		t.Errorf("listed %v, %v", list, err)
	}
	// Of two, the flavour is the one made last, whatever their names.
	older := b
	older.Name = "minimal-6.6.6_9999"
	k, err := Install(t.Context(), older)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(k.Image, time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"minimal": b.Name, "minimal-6.6.6_9": older.Name} {
		if k, err := Find(name); err != nil || k.Name != want {
			t.Errorf("Find(%q) = %+v, %v, want %s", name, k, err, want)
		}
	}
	if k, err := Find("minimal-6.6.6"); err == nil {
		t.Errorf("what two names start with is %+v", k)
	}
}

func TestRemove(t *testing.T) {
	root := fakeKernels(t, "6.1.0-9-cloud_6.1.1", "6.1.0-10-cloud_6.1.2")
	k, err := Find("6.1.0-9")
	if err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 1 || entries[0].Name() != "6.1.0-10-cloud_6.1.2" {
		t.Errorf("left %v, %v", entries, err)
	}
	var own *workload.Error
	if err := Remove(t.Context(), k); !errors.As(err, &own) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("again: %v", err)
	}
}

func TestNewestSource(t *testing.T) {
	for names, want := range map[string]string{
		"": "",
		"linux-source-6.1\nlinux-source-6.12\nlinux-source-6.9\nlinux-source-rt\n": "linux-source-6.12",
		"linux-source\nlinux-source-6.1;rm\n":                                      "",
	} {
		if got := newestSource(names); got != want {
			t.Errorf("newestSource(%q) = %q, want %q", names, got, want)
		}
	}
}

func TestVmlinuxOfFetchedKernel(t *testing.T) {
	k := fetched(t)
	path, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if f.Entry != 0x1000000 {
		t.Errorf("entry %#x, want CONFIG_PHYSICAL_START 0x1000000", f.Entry)
	}
	again, err := k.Vmlinux(t.Context())
	if err != nil || again != path {
		t.Errorf("second time: %q, %v, want %q", again, err, path)
	}
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	k := fetched(t)
	order, err := k.Modules("erofs", "virtio_blk", "vmw_vsock_virtio_transport", "kvm-amd", "ext4")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range order {
		names = append(names, m.Name)
	}
	for _, pair := range [][2]string{
		{"virtio_ring", "virtio"}, // virtio_ring uses no symbol of virtio
		{"virtio", "virtio_blk"},
		{"libcrc32c", "erofs"},
		{"vsock", "vmw_vsock_virtio_transport_common"},
		{"vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"},
		{"irqbypass", "kvm"},
		{"kvm", "kvm_amd"},
	} {
		a, b := slices.Index(names, pair[0]), slices.Index(names, pair[1])
		if a < 0 || b < 0 || a > b {
			t.Errorf("%s does not come before %s in %q", pair[0], pair[1], names)
		}
	}
	if slices.Contains(names, "ext4") {
		t.Error("ext4 is built in and must not be listed")
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(order) {
		t.Errorf("a module is listed twice in %q", names)
	}
}

func TestMissingModulesAreNamed(t *testing.T) {
	_, err := fetched(t).Modules("erofs", "no_such_a", "no-such-b")
	var missing *MissingError
	if !errors.As(err, &missing) || !slices.Equal(missing.Modules, []string{"no_such_a", "no_such_b"}) {
		t.Errorf("got %v", err)
	}
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"6.1.0-9-cloud", "6.1.0-56-cloud", -1},
		{"6.1.0-56", "6.1.0-56", 0},
		{"6.12.1", "6.2.9", 1},
		{"6.1.0-056", "6.1.0-56", 0},
		{"6.1", "6.1.1", -1},
		{"a", "1", 1},
	} {
		if got := cmp.Compare(compareVersions(c.a, c.b), 0); got != c.want {
			t.Errorf("compareVersions(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := cmp.Compare(compareVersions(c.b, c.a), 0); got != -c.want {
			t.Errorf("compareVersions(%q, %q) = %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}
