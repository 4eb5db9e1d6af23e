package image_test

import (
	"archive/tar"
	"bytes"
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
	"github.com/duplex-run/duplex/image/sources"
	"github.com/duplex-run/duplex/internal/testutil/listing"
	"github.com/duplex-run/duplex/internal/workload"
)

// importEnv makes the test binary import the reference it holds, print the
// digest, and keep the image in use until its stdin ends. "rm:" and a digest
// removes instead.
const importEnv = "DUPLEX_TEST_IMPORT"

func TestMain(m *testing.M) {
	sources.Use()
	if ref := os.Getenv(importEnv); ref != "" {
		os.Exit(importMain(ref))
	}
	os.Exit(m.Run())
}

func importMain(ref string) int {
	if digest, isRemove := strings.CutPrefix(ref, "rm:"); isRemove {
		found, err := image.Find(digest)
		if err == nil {
			err = image.Remove(found[0])
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
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
	digests := []string{}
	for _, content := range []string{"1", "22", "333"} {
		if err := os.WriteFile(filepath.Join(d, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := image.Resolve(t.Context(), "rootfs:"+d, image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, img.Digest)
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := image.List()
	if err != nil || len(all) != 3 {
		t.Fatalf("listed %d images, %v", len(all), err)
	}
	for i, img := range all {
		if img.Digest != digests[2-i] {
			t.Errorf("image %d of the list is out of order", i)
		}
	}
	if removed, err := image.Prune(false); err != nil || len(removed) != 2 {
		t.Errorf("prune removed %d, %v", len(removed), err)
	}
	left, err := image.List()
	if err != nil || len(left) != 1 || left[0].Digest != digests[2] {
		t.Errorf("left %v, %v", left, err)
	}
	if removed, err := image.Prune(true); err != nil || len(removed) != 1 {
		t.Errorf("prune all removed %d, %v", len(removed), err)
	}
}

// A disk that fills up is named, and what was written is given back.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	cache := newStore(t)
	content := make([]byte, 8<<20)
	for i := range content {
		content[i] = byte(i%251 + 1)
	}
	ref := ociLayout(t, plain(tarOf(t, member{name: "big", content: content})))
	err := listing.OnSmallDisk(1<<20, cache, func() error {
		_, err := image.Resolve(t.Context(), ref, image.Options{})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
		assertEmpty(t, filepath.Join(cache, "images"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A user without privileges imports and unpacks what only root could own, and
// removes it again.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	entries := tarOf(t, text("a", "1"), text("sub/b", "2"))
	ref := ociLayout(t, plain(specials(t)), plain(entries))
	dir := strings.TrimPrefix(ref, "oci:")
	cache := newStore(t)
	for _, d := range []string{dir, cache} {
		err := filepath.WalkDir(d, func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, 65534, 65534))
		})
		// Above it are this test's directories, which only root may enter.
		for p := d; p != os.TempDir() && err == nil; p = filepath.Dir(p) {
			err = os.Chmod(p, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	exe := filepath.Join(dir, "test") // the test binary's own place may be closed to others
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", self, exe).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(env string) string {
		cmd := exec.Command(exe)
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), env)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", env, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	hex := strings.TrimPrefix(run(importEnv+"="+ref), "sha256:")
	tree := filepath.Join(cache, "images", hex, "tree")
	got, err := listing.Of(tree, listing.Options{NoTimes: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"." 040755 65534:65534`,
		`"a" 100644 65534:65534 1 nlink=1 ` + sum([]byte("1")),
		`"closed" 040700 65534:65534`,
		`"closed/in" 100000 65534:65534 1 nlink=2 same-as="closed/in" ` + sum([]byte("i")),
		`"fifo" 010600 65534:65534 0 nlink=1`,
		`"hard" 100000 65534:65534 1 nlink=2 same-as="closed/in" ` + sum([]byte("i")),
		`"sub" 040755 65534:65534`,
		`"sub/b" 100644 65534:65534 1 nlink=1 ` + sum([]byte("2")),
		`"suid" 100755 65534:65534 1 nlink=1 ` + sum([]byte("s")) + ` user.x=79`,
	}
	if d := listing.Diff(want, got, 20); d != "" {
		t.Errorf("tree:\n%s", d)
	}
	img, err := image.Find(hex)
	if err != nil || len(img) != 1 {
		t.Fatalf("%v, %v", img, err)
	}
	run(importEnv + "=rm:" + hex)
	assertEmpty(t, filepath.Join(cache, "images"))
}

// specials is a layer of what a user without privileges cannot make.
func specials(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Name: "closed", Typeflag: tar.TypeDir, Mode: 0o000, Uid: 5, Gid: 6},
		{Name: "closed/in", Typeflag: tar.TypeReg, Mode: 0o000, Size: 1},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "closed/in"},
		{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o6755, Size: 1, PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"SCHILY.xattr.user.x":              "y"}},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(filepath.Base(h.Name)[:1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A damaged image is made anew instead of used.
func TestDamagedImage(t *testing.T) {
	t.Run("truncated", func(t *testing.T) {
		testDamaged(t, func(file string) error { return os.Truncate(file, 100) })
	})
	t.Run("missing", func(t *testing.T) { testDamaged(t, os.Remove) })
}

func testDamaged(t *testing.T, damage func(file string) error) {
	newStore(t)
	ref := ociLayout(t, plain(tarOf(t, text("a", "1"))))
	img := resolve(t, ref, image.Options{})
	if err := errors.Join(img.Close(), damage(img.EROFS)); err != nil {
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
