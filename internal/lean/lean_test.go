package lean

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadOnly(t *testing.T) {
	const maps = `00400000-00401000 r--p 00000000 08:01 7 /usr/bin/a b
00401000-00402000 r-xp 00001000 08:01 7 /usr/bin/a b
00402000-00403000 rw-p 00002000 08:01 7 /usr/bin/a b
00403000-00404000 r--p 00000000 08:01 8 /usr/bin/b
7f0000000000-7f0000001000 r--p 00000000 00:00 0
nonsense r--p 0 0 0 /usr/bin/a b
`
	want := []Pages{{0x400000, 0x401000}, {0x401000, 0x402000}}
	if got := readOnly(maps, "/usr/bin/a b"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The pages of this program are gone when they were dropped, and it goes on.
func TestSettle(t *testing.T) {
	program := Program()
	if len(program) == 0 {
		t.Fatal("the program has no pages")
	}
	for _, p := range program {
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(p.Start), uintptr(p.End-p.Start), unix.MADV_POPULATE_READ)
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	before := mapped(t)
	Settle(program)
	if after := mapped(t); after > before*4/5 {
		t.Errorf("%d KiB of the program are mapped, %d before", after, before)
	}
}

// mapped is how much of this program is mapped, in KiB.
func mapped(t *testing.T) (sum int) {
	t.Helper()
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 1 && strings.Contains(fields[0], "-"):
			in = strings.HasSuffix(line, " "+name+"\n")
		case in && fields[0] == "Rss:":
			n, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
