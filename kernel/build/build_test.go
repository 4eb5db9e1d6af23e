package build

import (
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xi2/xz"

	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

// tree makes a source tree that is built in no time: testdata/tree, with a Kconfig
// that knows our options, and a kernel that is there already. more are further
// files.
func tree(t *testing.T, more map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "linux")
	if err := os.CopyFS(dir, os.DirFS("testdata/tree")); err != nil {
		t.Fatal(err)
	}
	known, _, err := Options{}.settings()
	if err != nil {
		t.Fatal(err)
	}
	var kconfig strings.Builder
	for _, option := range slices.Sorted(maps.Keys(known)) {
		kconfig.WriteString("config " + strings.TrimPrefix(option, "CONFIG_") + "\n\tbool\n")
	}
	kconfig.WriteString("config HARD\n\tdepends on LUCK && SKILL\n")
	files := map[string]string{"Kconfig": kconfig.String(), "vmlinux": smallKernel(t)}
	maps.Copy(files, more)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// smallKernel is an ELF file with the banner of a kernel.
func smallKernel(t *testing.T) string {
	t.Helper()
	f, err := os.Open("../testdata/smallelf.xz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := xz.NewReader(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// machine gives the test a cache of its own and the tools that this machine may
// lack: a tree without C uses none of them but make and tar.
func machine(t *testing.T) (cache string) {
	t.Helper()
	cache = t.TempDir()
	t.Setenv("DUPLEX_CACHE", cache)
	bin := t.TempDir()
	for _, n := range needed {
		if n.program == "make" || n.program == "tar" {
			continue
		}
		if err := os.WriteFile(filepath.Join(bin, n.program), []byte("#!/bin/sh\necho "+n.program+" 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return cache
}

// runs says how often make has built something.
func runs(cache string) int {
	text, _ := os.ReadFile(filepath.Join(cache, "kernel-build", "runs"))
	return strings.Count(string(text), "run")
}

// wantClean fails when a build left more than its log.
func wantClean(t *testing.T, cache string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(cache, "kernel-build", "*", workName)); len(left) > 0 {
		t.Errorf("working directories are still there: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "kernels", ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestBuiltKernelIsInstalledOnce(t *testing.T) {
	cache := machine(t)
	t.Setenv("CFLAGS", "-DOF_THE_USER")
	if err := os.MkdirAll(filepath.Join(cache, "kernel-build", "another", workName, "of", "a", "killed", "build"), 0o700); err != nil {
		t.Fatal(err)
	}
	fragment := filepath.Join(t.TempDir(), "fragment")
	if err := os.WriteFile(fragment, []byte("# of another version (until 5.1)\nCONFIG_GONE=y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Minimal: true, Source: tree(t, nil), Fragments: []string{fragment}}
	var steps []string
	k, err := Build(t.Context(), o, func(step string, _ float64) { steps = append(steps, step) })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(k.Name, "minimal-6.6.6_") || k.Release != "6.6.6-test" || k.Package != o.Source || !k.Built || k.ModulesDir != "" {
		t.Errorf("built %+v", k)
	}
	if !slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(s, "compile, 1 of about") }) {
		t.Errorf("steps %q", steps)
	}
	if text, err := os.ReadFile(filepath.Join(filepath.Dir(k.Image), "bzImage")); err != nil || string(text) != "duplex "+stamp+" none none \n" {
		t.Errorf("the bzImage is %q, %v", text, err)
	}
	found, err := kernel.Find("minimal")
	if err != nil || found.Name != k.Name {
		t.Errorf("Find: %+v, %v", found, err)
	}
	if order, err := k.Modules("virtio_mmio"); err != nil || len(order) > 0 {
		t.Errorf("modules %v, %v", order, err)
	}
	again, err := Build(t.Context(), o, nil)
	if err != nil || again.Name != k.Name || runs(cache) != 1 {
		t.Errorf("again: %+v, %v after %d runs", again, err, runs(cache))
	}
	wantClean(t, cache)
}

// Both fragments satisfy what the microVM needs, and what it is better with.
func TestOurKernelsHaveAllTheMicroVMNeeds(t *testing.T) {
	machine(t)
	dir := tree(t, nil)
	for _, minimal := range []bool{true, false} {
		k, err := Build(t.Context(), Options{Minimal: minimal, Source: dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := kernel.Inspect(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range info.Options {
			if o.Value != kernel.BuiltIn {
				t.Errorf("minimal %v: %s is %s", minimal, o.Option, o.Value)
			}
		}
	}
}

func TestBuildsAtOnceBuildOnce(t *testing.T) {
	cache := machine(t)
	o := Options{Source: tree(t, nil)}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if k, err := Build(t.Context(), o, nil); err != nil || !strings.HasPrefix(k.Name, "duplex-6.6.6_") {
				t.Errorf("%+v, %v", k, err)
			}
		})
	}
	wg.Wait()
	if n := runs(cache); n != 1 {
		t.Errorf("built %d times", n)
	}
	wantClean(t, cache)
}

// tarball packs the directory dir, which is called linux.
func tarball(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "linux.tar")
	if out, err := exec.Command("tar", "-C", filepath.Dir(dir), "-cf", path, "linux").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestBuildFromTarball(t *testing.T) {
	cache := machine(t)
	packed := tarball(t, tree(t, nil))
	if _, err := Build(t.Context(), Options{Source: packed}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(packed, 2000); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), Options{Source: packed}, nil); err == nil || !strings.Contains(err.Error(), "unpack linux.tar") {
		t.Errorf("cut short: %v", err)
	}
	wantClean(t, cache)
}

func TestBuildFailures(t *testing.T) {
	fragment := func(text string) []string {
		path := filepath.Join(t.TempDir(), "fragment")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path}
	}
	noX86 := tree(t, nil)
	if err := os.RemoveAll(filepath.Join(noX86, "arch", "x86")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    Options
		want []string
	}{
		"unknown option": {Options{Source: tree(t, nil), Fragments: fragment("CONFIG_NO_SUCH=y\n# luck (since 5.1)\nCONFIG_HARD=y\n# gone (until 5.1)\nCONFIG_GONE=y\n")},
			[]string{"CONFIG_NO_SUCH: wanted y, got n: this kernel has no such option", "CONFIG_HARD: wanted y, got n: depends on LUCK && SKILL"}},
		"malformed fragment": {Options{Source: tree(t, nil), Fragments: fragment("\nCONFIG_A=maybe\n")}, []string{"fragment: line 2"}},
		"no fragment":        {Options{Source: tree(t, nil), Fragments: []string{"/nonexistent"}}, []string{"/nonexistent"}},
		"compiler error":     {Options{Source: tree(t, map[string]string{"broken": ""})}, []string{"main.c:1:1: error: expected identifier", logName}},
		"no kernel made":     {Options{Source: tree(t, map[string]string{"vmlinux": "text"})}, []string{"vmlinux"}},
		"no source":          {Options{Source: "/nonexistent"}, []string{"/nonexistent"}},
		"another directory":  {Options{Source: t.TempDir()}, []string{"no kernel source"}},
		"without x86":        {Options{Source: noX86}, []string{"lacks x86"}},
		"tarball, no x86":    {Options{Source: tarball(t, noX86)}, []string{"lacks x86"}},
		"built in":           {Options{Source: tree(t, map[string]string{".config": ""})}, []string{"it was built in"}},
	} {
		t.Run(name, func(t *testing.T) {
			cache := machine(t)
			_, err := Build(t.Context(), c.o, nil)
			var werr *workload.Error
			if !errors.As(err, &werr) {
				t.Fatalf("got %v, want a *workload.Error", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v\ndoes not say %q", err, w)
				}
			}
			if list, err := kernel.List(); err != nil || len(list) > 0 {
				t.Errorf("installed %v, %v", list, err)
			}
			wantClean(t, cache)
		})
	}
}

func TestMissingToolsAreNamedFirst(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	for _, program := range []string{"make", "ld", "perl", "tar", "xz"} {
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for gcc, want := range map[string]struct{ lacks, installs string }{
		"":                    {"gcc, flex, bison, bc", "apt-get install bc bison flex gcc libc6-dev libelf-dev"},
		"#!/bin/sh\nexit 1\n": {"flex, bison, bc, stdio.h, gelf.h", "apt-get install bc bison flex libc6-dev libelf-dev"},
	} {
		path := filepath.Join(bin, "gcc")
		_ = os.Remove(path)
		if gcc != "" {
			if err := os.WriteFile(path, []byte(gcc), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Build(t.Context(), Options{}, func(step string, _ float64) { t.Errorf("%s, without tools", step) })
		var werr *workload.Error
		if !errors.As(err, &werr) || !strings.HasSuffix(err.Error(), "not installed: "+want.lacks) || !strings.Contains(werr.Remedy, want.installs) {
			t.Errorf("got %v, %+v", err, werr)
		}
	}
}
