package sysmon

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// One thread's slack is raised, and not the first one's: processes inherit it.
func TestCalm(t *testing.T) {
	read := func(tid string) string {
		b, err := os.ReadFile("/proc/" + tid + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	first := strconv.Itoa(os.Getpid())
	before := read(first)
	Calm()
	if got := read(first); got != before {
		t.Errorf("the first thread's slack: %s, was %s", got, before)
	}
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	raised := 0
	for _, e := range list {
		if e.Name() != first && read(e.Name()) == slack {
			raised++
		}
	}
	if raised > 1 || raised == 0 && list[0].Name() == first {
		t.Errorf("%d threads' slack was raised", raised)
	}
}
