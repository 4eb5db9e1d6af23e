package attack

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Bait is a directory of the host with one file, "ptmx"; unharmed says whether it
// is as it was. It is not in /tmp, which a container's set-up covers.
func Bait(t *testing.T) (dir string, unharmed func()) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "duplex-bait-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	file := filepath.Join(dir, "ptmx")
	must(t, os.WriteFile(file, []byte("mine"), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "victim"), 0o700))
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		must(t, err)
		text, err := os.ReadFile(file)
		if len(entries) != 2 || err != nil || string(text) != "mine" {
			t.Fatalf("the host's directory was changed: %v, %q, %v", entries, text, err)
		}
	}
}

// Leak opens the host's root as a careless caller does, by a number that nothing
// else takes, and lists it with the numbers that a set-up may have files at.
func Leak(t *testing.T) (numbers []int) {
	t.Helper()
	root, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	leak, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD, 200)
	must(t, err)
	t.Cleanup(func() { _, _ = unix.Close(leak), unix.Close(root) })
	for fd := range Races() {
		numbers = append(numbers, 3+fd)
	}
	return append(numbers, leak)
}

// Swap exchanges the files a and b until the test ends, as another container
// that shares a volume can.
func Swap(t *testing.T, a, b string) {
	t.Helper()
	must(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// Races is how often a test that has to win a race tries.
func Races() int {
	if testing.Short() {
		return 4
	}
	return 20
}

// Some tries least times what may lose a race, and until it was won once.
func Some(t *testing.T, least int, try func() error) {
	t.Helper()
	won := false
	for i := 0; i < least || !won; i++ {
		err := try()
		if won = won || err == nil; !won && i > 1000 {
			t.Fatalf("no container ran: %v", err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
