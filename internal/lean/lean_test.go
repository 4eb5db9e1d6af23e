package lean

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What Program reads from the file is what the kernel maps of it.
func TestProgram(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	var want []Pages
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasSuffix(line, " "+name+"\n") || fields[1][1] != '-' {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(low, 16, 64)
		end, err2 := strconv.ParseUint(high, 16, 64)
		if err1 != nil || err2 != nil {
			t.Fatal(line)
		}
		want = append(want, Pages{start, end})
	}
	if got := Program(self); len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := Program(strings.NewReader("no program")); got != nil {
		t.Errorf("of what is no program: %x", got)
	}
}

// The pages of this program are gone when they were dropped, and it goes on.
func TestSettle(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	program := Program(self)
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
