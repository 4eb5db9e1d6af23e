package image_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/workload"
)

// importEnv makes the test binary import the reference it holds, print the
// digest, and keep the image in use until its stdin ends.
const importEnv = "DUPLEX_TEST_IMPORT"

func TestMain(m *testing.M) {
	if ref := os.Getenv(importEnv); ref != "" {
		os.Exit(importMain(ref))
	}
	os.Exit(m.Run())
}

func importMain(ref string) int {
	ctx, cancel := testContext()
	defer cancel()
	img, err := image.Resolve(ctx, ref, image.Options{NeedTree: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(img.Digest)
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

func importer(t *testing.T, ref string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), importEnv+"="+ref)
	return cmd
}

// bigArchive is an image that takes a while to import.
func bigArchive(t *testing.T) string {
	t.Helper()
	var members []member
	for i := range 300 {
		members = append(members, text(fmt.Sprintf("file%d", i), strings.Repeat(fmt.Sprintf("%d", i), 30000)))
	}
	p := tarOf(t, members...)
	return dockerArchive(t, blob{gzipped(t, p), p})
}

// Several processes that need one image at once import it once and all get it.
func TestConcurrentImport(t *testing.T) {
	cache := newStore(t)
	ref := bigArchive(t)
	var running []*exec.Cmd
	for range 6 {
		cmd := importer(t, ref)
		cmd.Stdout, cmd.Stderr = new(strings.Builder), os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	img := resolve(t, ref, image.Options{NeedTree: true})
	for _, cmd := range running {
		if got := strings.TrimSpace(fmt.Sprint(cmd.Stdout)); got != img.Digest {
			t.Errorf("a process got %q", got)
		}
	}
	assertStore(t, cache, img)
}

// assertStore fails unless the store holds exactly the one image.
func assertStore(t *testing.T, cache string, img *image.Image) {
	t.Helper()
	hex := strings.TrimPrefix(img.Digest, "sha256:")
	var got []string
	err := filepath.WalkDir(filepath.Join(cache, "images"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() != "tree" && !strings.Contains(path, "/tree/") {
			got = append(got, strings.TrimPrefix(path, filepath.Join(cache, "images")))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[ /%[1]s /%[1]s/config.json /%[1]s/rootfs.erofs /%[1]s/tree.lock /%[1]s.lock]", hex)
	if fmt.Sprint(got) != want {
		t.Errorf("store holds %v, want %s", got, want)
	}
}

// An import that is killed at any moment leaves a store in which the next one
// succeeds and cleans up.
func TestKilledImport(t *testing.T) {
	cache := newStore(t)
	ref := bigArchive(t)
	whole := resolve(t, ref, image.Options{})
	if err := errors.Join(whole.Close(), image.Remove(whole)); err != nil {
		t.Fatal(err)
	}
	litter := 0
	for i := range 20 {
		cmd := importer(t, ref)
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe() // never written: the importer waits at its end
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // the moment is arbitrary, not awaited
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		_ = cmd.Wait()
		_ = stdin.Close()
		tmp, err := filepath.Glob(filepath.Join(cache, "images/*.tmp"))
		if err != nil {
			t.Fatal(err)
		}
		litter += len(tmp)
		if _, err := image.Prune(i%2 == 0); err != nil {
			t.Fatal(err)
		}
		if tmp, _ := filepath.Glob(filepath.Join(cache, "images/*.tmp")); len(tmp) > 0 {
			t.Errorf("round %d: not swept: %v", i, tmp)
		}
	}
	t.Logf("%d of 20 kills left something", litter)
	img := resolve(t, ref, image.Options{NeedTree: true})
	if got := readFile(t, img, "file299"); got != strings.Repeat("299", 30000) {
		t.Errorf("file299 holds %d bytes", len(got))
	}
	assertStore(t, cache, img)
}

// An image is not removed while a process uses it, and is afterwards, even if
// that process was killed.
func TestRemoveInUse(t *testing.T) {
	cache := newStore(t)
	ref := dockerArchive(t, plain(tarOf(t, text("a", "1"))))
	cmd := importer(t, ref)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	found, err := image.Find(ref)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	err = image.Remove(found[0])
	var shown *workload.Error
	if !errors.Is(err, image.ErrInUse) || !errors.As(err, &shown) || shown.Remedy == "" {
		t.Errorf("removing an image in use: %v", err)
	}
	if removed, err := image.Prune(true); err != nil || len(removed) != 0 {
		t.Errorf("prune removed %v, %v", removed, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := image.Remove(found[0]); err != nil {
		t.Error(err)
	}
	assertEmpty(t, filepath.Join(cache, "images"))
	if _, err := image.Find(ref); !errors.Is(err, image.ErrUnknown) {
		t.Errorf("after removal: %v", err)
	}
}

// Prune keeps the newest image of a reference, prune --all none.
func TestPrune(t *testing.T) {
	newStore(t)
	d := t.TempDir()
	digests := map[string]bool{}
	for _, content := range []string{"1", "22", "333"} {
		if err := os.WriteFile(filepath.Join(d, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := image.Resolve(t.Context(), "rootfs:"+d, image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		digests[img.Digest] = true
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := image.List()
	if err != nil || len(all) != 3 || len(digests) != 3 {
		t.Fatalf("listed %d images, %d digests, %v", len(all), len(digests), err)
	}
	if removed, err := image.Prune(false); err != nil || len(removed) != 2 {
		t.Errorf("prune removed %d, %v", len(removed), err)
	}
	left, err := image.List()
	if err != nil || len(left) != 1 || left[0].Digest != all[0].Digest {
		t.Errorf("left %v, %v", left, err)
	}
	if removed, err := image.Prune(true); err != nil || len(removed) != 1 {
		t.Errorf("prune all removed %d, %v", len(removed), err)
	}
}

// A damaged image is made anew instead of used.
func TestDamagedImage(t *testing.T) {
	newStore(t)
	ref := ociLayout(t, plain(tarOf(t, text("a", "1"))))
	img := resolve(t, ref, image.Options{})
	if err := errors.Join(img.Close(), os.Truncate(img.EROFS, 100)); err != nil {
		t.Fatal(err)
	}
	listed, err := image.List()
	if err != nil || len(listed) != 1 || !listed[0].Damaged || listed[0].Digest != img.Digest {
		t.Errorf("listed %+v, %v", listed, err)
	}
	if got := readFile(t, resolve(t, ref, image.Options{}), "a"); got != "1" {
		t.Errorf("file holds %q", got)
	}
}
