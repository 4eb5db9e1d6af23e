package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/testutil/listing"
)

func testKey() Key {
	return Key{Asked: Asked{Image: "sha256:1", Kernel: "/k", Memory: 16 << 20, CPUs: 1}, Duplex: "v1", Host: "h", KernelFile: "a", InitrdFile: "b", ImageFile: "c"}
}

// commit makes a snapshot with some data in its memory.
func commit(t *testing.T, root string, k Key, fill byte) string {
	t.Helper()
	p, err := Create(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Memory.Truncate(int64(k.Memory)); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{8192, 5 << 20, 16<<20 - 4096} {
		if _, err := p.Memory.WriteAt(bytes.Repeat([]byte{fill}, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := p.Commit(k, []byte("machine"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Abandon(); err != nil { // as callers do
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string, want *Key) error {
	t.Helper()
	s, err := Open(dir, want)
	if err == nil {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	return err
}

func TestCommitAndOpen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "snapshots")
	k := testKey()
	dir := commit(t, root, k, 7)
	s, err := Open(dir, &k)
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Machine) != "machine" || s.Meta.Memory.Size != 16<<20 || s.Meta.Memory.Data != 3*4096 {
		t.Errorf("%q, %+v", s.Machine, s.Meta)
	}
	f := s.TakeMemory()
	defer func() { _ = f.Close() }()
	if _, err := f.Write([]byte{1}); err == nil {
		t.Error("the memory is open for writing")
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("the memory takes %d bytes on the disk, %v", st.Blocks*512, err)
	}
	commit(t, root, k, 8) // in its place
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	list, err := List(root)
	if err != nil || len(list) != 1 || list[0].Err != nil || list[0].Name != k.Name() {
		t.Errorf("%+v, %v", list, err)
	}
	if err := Remove(root, k.Name()); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir, &k); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	for _, name := range []string{"", ".", "..", "../x", k.Name()} {
		if err := Remove(root, name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
}

// A snapshot of anything else is stale, and the reason is named.
func TestStale(t *testing.T) {
	root := t.TempDir()
	k := testKey()
	dir := commit(t, root, k, 1)
	for what, change := range map[string]func(*Key){
		"image":               func(k *Key) { k.Image = "x" },
		"kernel":              func(k *Key) { k.Kernel = "x" },
		"kernel command line": func(k *Key) { k.Cmdline = "x" },
		"memory":              func(k *Key) { k.Memory++ },
		"CPUs":                func(k *Key) { k.CPUs++ },
		"duplex":              func(k *Key) { k.Duplex = "x" },
		"host":                func(k *Key) { k.Host = "x" },
		"kernel file":         func(k *Key) { k.KernelFile = "x" },
		"initramfs file":      func(k *Key) { k.InitrdFile = "x" },
		"image file":          func(k *Key) { k.ImageFile = "x" },
	} {
		want := k
		change(&want)
		if err := open(t, dir, &want); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "its "+what+" was") {
			t.Errorf("%s: %v", what, err)
		}
		if same := want.Name() == k.Name(); same != (want.Asked == k.Asked) {
			t.Errorf("%s: same name %v", what, same)
		}
	}
}

// A state that is cut short anywhere, or has any bit flipped, is refused.
func TestDamagedState(t *testing.T) {
	root := t.TempDir()
	k := testKey()
	dir := commit(t, root, k, 1)
	path := filepath.Join(dir, stateName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, p []byte) {
		t.Helper()
		m, _, err := parse(p)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrStale) {
			t.Fatalf("%s: %+v, %v", what, m, err)
		}
	}
	for n := range len(whole) {
		refused("cut short", whole[:n])
		for bit := range 8 {
			p := bytes.Clone(whole)
			p[n] ^= 1 << bit
			refused("flipped", p)
		}
	}
	refused("longer", append(bytes.Clone(whole), 0))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir, &k); !errors.Is(err, ErrDamaged) {
		t.Errorf("without a state: %v", err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir, &k); !errors.Is(err, ErrDamaged) {
		t.Errorf("a pipe: %v", err)
	}
}

func TestDamagedMemory(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"shorter":              func(t *testing.T, path string) { check(t, os.Truncate(path, 16<<20-1)) },
		"longer":               func(t *testing.T, path string) { check(t, os.Truncate(path, 16<<20+4096)) },
		"a bit":                func(t *testing.T, path string) { poke(t, path, 8192+5, 0) },
		"a page that was zero": func(t *testing.T, path string) { poke(t, path, 1<<20, 1) },
		"moved data": func(t *testing.T, path string) {
			poke(t, path, 8192, bytes.Repeat([]byte{0}, 4096)...)
			poke(t, path, 16384, bytes.Repeat([]byte{1}, 4096)...)
		},
		"missing": func(t *testing.T, path string) { check(t, os.Remove(path)) },
		"a link": func(t *testing.T, path string) {
			check(t, errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := testKey()
			dir := commit(t, t.TempDir(), k, 1)
			path := filepath.Join(dir, memoryName)
			check(t, os.Chmod(path, 0o600)) // for those who are not root
			damage(t, path)
			err := open(t, dir, &k)
			if name == "a link" {
				if !errors.Is(err, unix.ELOOP) {
					t.Error(err)
				}
			} else if !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
		})
	}
}

// A copy is read as a whole, and is as good.
func TestCopy(t *testing.T) {
	k := testKey()
	dir := commit(t, t.TempDir(), k, 1)
	to := filepath.Join(t.TempDir(), "copy")
	check(t, os.CopyFS(to, os.DirFS(dir)))
	check(t, os.Chmod(to, 0o700))
	for _, name := range []string{stateName, memoryName} {
		check(t, os.Chmod(filepath.Join(to, name), 0o600)) // CopyFS follows the umask, which may be lax
	}
	if err := open(t, to, &k); err != nil {
		t.Error(err)
	}
}

// Nobody else may have made a snapshot, or be able to change it.
func TestForeign(t *testing.T) {
	k := testKey()
	for _, name := range []string{"", stateName, memoryName} {
		dir := commit(t, t.TempDir(), k, 1)
		path := filepath.Join(dir, name)
		check(t, os.Chmod(path, 0o722))
		if err := open(t, dir, &k); !errors.Is(err, ErrWritable) {
			t.Errorf("%s writable by others: %v", name, err)
		}
		check(t, os.Chmod(path, 0o700))
		if os.Geteuid() != 0 {
			continue // nobody else can give a file away
		}
		check(t, os.Lchown(path, 1234, 1234))
		if err := open(t, dir, &k); !errors.Is(err, ErrForeign) {
			t.Errorf("%s of another user: %v", name, err)
		}
	}
	if os.Geteuid() == 0 {
		root := t.TempDir()
		check(t, os.Chown(root, 1234, 1234))
		if p, err := Create(root); !errors.Is(err, ErrForeign) {
			t.Errorf("create among another user's: %v, %v", p, err)
		}
	}
}

// What a killed creator leaves is no snapshot, and goes with the next one; what a
// live one works on stays.
func TestKilled(t *testing.T) {
	root := t.TempDir()
	left := filepath.Join(root, tmpPrefix+"123")
	check(t, os.Mkdir(left, 0o700))
	check(t, os.WriteFile(filepath.Join(left, memoryName), []byte("half"), 0o600))
	if list, err := List(root); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	first, err := Create(root)
	check(t, err)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover: %v", err)
	}
	second, err := Create(root)
	check(t, err)
	check(t, errors.Join(first.Memory.Truncate(16<<20), second.Memory.Truncate(16<<20)))
	k := testKey()
	for _, p := range []*Pending{first, second} {
		if _, err := p.Commit(k, nil); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != k.Name() {
		t.Errorf("%v, %v", entries, err)
	}
}

// What was made by or of what there is no more is stale, and goes with what is damaged
// and with what killed creators left; what is in use here, and another user's, stays.
func TestPrune(t *testing.T) {
	root := filepath.Join(t.TempDir(), "snapshots")
	if removed, err := Prune(root, "v1", true); err != nil || len(removed) > 0 {
		t.Errorf("of nothing %q, %v", removed, err)
	}
	host, err := HostID()
	check(t, err)
	files := t.TempDir()
	fresh := testKey()
	fresh.Host = host
	for name, id := range map[string]*string{"kernel size 1": &fresh.KernelFile, "initrd": &fresh.InitrdFile, "image": &fresh.ImageFile} {
		path := filepath.Join(files, name)
		check(t, os.WriteFile(path, []byte(name), 0o600))
		*id, err = FileID(path)
		check(t, err)
	}
	var stale []string
	add := func(image string, change func(*Key)) string {
		k := fresh
		k.Image = image
		change(&k)
		commit(t, root, k, 1)
		return k.Name()
	}
	kept := add("fresh", func(*Key) {})
	stale = append(stale,
		add("version", func(k *Key) { k.Duplex = "v0" }),
		add("host", func(k *Key) { k.Host = "another" }),
		add("gone", func(k *Key) { k.KernelFile = files + "/gone size 1 inode 2 changed 3.0" }),
		add("changed", func(k *Key) { k.ImageFile += "1" }),
		add("damaged", func(*Key) {}))
	check(t, os.Truncate(filepath.Join(root, stale[4], memoryName), 4096))
	check(t, os.Mkdir(filepath.Join(root, tmpPrefix+"1"), 0o700))
	foreign := add("foreign", func(*Key) {})
	if os.Geteuid() == 0 {
		check(t, os.Chown(filepath.Join(root, foreign), 1234, 1234))
	}
	removed, err := Prune(root, "v1", false)
	slices.Sort(removed)
	slices.Sort(stale)
	if err != nil || !slices.Equal(removed, stale) {
		t.Errorf("removed %q (%v), want %q", removed, err, stale)
	}
	var left []string
	entries, err := os.ReadDir(root)
	check(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{kept, foreign}; len(left) != 2 || !slices.Contains(left, kept) || !slices.Contains(left, foreign) {
		t.Errorf("left %q, want %q", left, want)
	}
	if removed, err = Prune(root, "v1", true); err != nil || len(removed) != 2 {
		t.Errorf("all: %q, %v", removed, err)
	}
}

// On a disk that fills up nothing is made.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	disk := t.TempDir()
	root := filepath.Join(disk, "snapshots") // not writable by everybody
	check(t, listing.OnSmallDisk(1<<20, disk, func() error {
		p, err := Create(root)
		if err != nil {
			return err
		}
		_, err = p.Memory.WriteAt(bytes.Repeat([]byte{1}, 1<<20-8192), 0)
		// The machine's state does not fit.
		dir, full := p.Commit(testKey(), bytes.Repeat([]byte{2}, 64<<10))
		if !errors.Is(full, unix.ENOSPC) {
			t.Errorf("%q, %v", dir, full)
		}
		err = errors.Join(err, p.Abandon())
		entries, rerr := os.ReadDir(root)
		if len(entries) > 0 {
			t.Errorf("left %v", entries)
		}
		return errors.Join(err, rerr)
	}))
}

func FuzzParse(f *testing.F) {
	whole, err := encode(&Meta{Key: testKey()}, []byte("machine"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, p []byte) {
		m, machine, err := parse(p)
		if err == nil && (m == nil || len(machine) > len(p)) {
			t.Errorf("%v, %d bytes of %d", m, len(machine), len(p))
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func poke(t *testing.T, path string, off int64, b ...byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt(b, off)
	check(t, errors.Join(err, f.Close()))
}
