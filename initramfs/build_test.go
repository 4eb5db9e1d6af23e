package initramfs

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/duplex-run/duplex/kernel"
)

func fetched(t testing.TB) *kernel.Kernel {
	t.Helper()
	if k, err := kernel.Find(""); err == nil {
		return k
	}
	k, err := kernel.Fetch(t.Context(), nil)
	if err != nil {
		t.Fatalf("these tests need the distribution's kernel: %v", err)
	}
	return k
}

func TestBuildHoldsAgentAndModulesInOrder(t *testing.T) {
	k := fetched(t)
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	agent := []byte("\x7fELF agent")
	for _, set := range []Set{MicroVM, Lab} {
		t.Run(set.Name, func(t *testing.T) {
			path, stats, err := Build(t.Context(), Options{Kernel: k, Set: set, Agent: agent})
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			a, err := cpio.ArchiveFromReader(cpio.Newc.Reader(f))
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, a, "init"); !bytes.Equal(got, agent) {
				t.Errorf("init is %q", got)
			}
			if mode := a.Files["init"].Mode; mode != cpio.S_IFREG|0o755 {
				t.Errorf("init has mode %#o", mode)
			}
			order := strings.Fields(string(content(t, a, "modules/order")))
			all := slices.Clone(order)
			for _, name := range set.Late {
				late := strings.Fields(string(content(t, a, "modules/late-"+name)))
				if len(late) == 0 || late[len(late)-1] != name+".ko" || slices.Contains(order, name+".ko") {
					t.Errorf("for %s the modules %q are loaded", name, late)
				}
				all = append(all, late...)
			}
			slices.Sort(all)
			all = slices.Compact(all)
			if len(all) != stats.Modules || stats.Files != len(a.Order) {
				t.Errorf("stats %+v, but %d modules and %d entries", stats, len(all), len(a.Order))
			}
			for _, name := range all {
				if data := content(t, a, "modules/"+name); !bytes.HasPrefix(data, []byte("\x7fELF")) {
					t.Errorf("%s is no ELF object", name)
				}
			}
			for _, name := range set.Required {
				if !slices.Contains(order, name+".ko") {
					t.Errorf("%s is not in the order", name)
				}
			}
		})
	}
}

func content(t *testing.T, a *cpio.Archive, name string) []byte {
	t.Helper()
	r, ok := a.Files[name]
	if !ok {
		t.Fatalf("no %s in the archive", name)
	}
	data := make([]byte, r.FileSize)
	if _, err := r.ReadAt(data, 0); err != nil && len(data) > 0 {
		t.Fatal(err)
	}
	return data
}

func TestBuildIsReproducibleAndKeyed(t *testing.T) {
	k := fetched(t)
	build := func(agent string) (string, []byte) {
		t.Helper()
		path, _, err := Build(t.Context(), Options{Kernel: k, Set: MicroVM, Agent: []byte(agent)})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return path, data
	}
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	path1, data1 := build("a")
	path2, _ := build("b")
	if path1 == path2 {
		t.Error("another agent found the same archive")
	}
	if again, _ := build("a"); again != path1 {
		t.Errorf("the same agent got %s, then %s", path1, again)
	}
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	if _, data := build("a"); !bytes.Equal(data, data1) {
		t.Error("built twice, differs")
	}
}

func TestMissingRequiredModuleIsNamed(t *testing.T) {
	k := fetched(t)
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	set := Set{Name: "test", Required: []string{"erofs", "no_such"}, Optional: []string{"no_such_either"}}
	_, _, err := Build(t.Context(), Options{Kernel: k, Set: set, Agent: []byte("a")})
	if err == nil || !strings.Contains(err.Error(), "no_such") || strings.Contains(err.Error(), "no_such_either") {
		t.Errorf("got %v, want an error that names no_such alone", err)
	}
	set.Required = []string{"erofs"}
	_, stats, err := Build(t.Context(), Options{Kernel: k, Set: set, Agent: []byte("a")})
	if err != nil || stats.Modules == 0 {
		t.Errorf("without it: %+v, %v", stats, err)
	}
}
