package container

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestStatuses(t *testing.T) {
	tree := newTree(t)
	for _, tt := range []struct {
		name string
		argv []string
		want int
	}{
		{"0", []string{"work", "exit", "0"}, 0},
		{"1", []string{"work", "exit", "1"}, 1},
		{"42", []string{"work", "exit", "42"}, 42},
		{"255", []string{"work", "exit", "255"}, 255},
		{"TERM", []string{"work", "kill", "15"}, 128 + int(unix.SIGTERM)},
		{"KILL", []string{"work", "kill", "9"}, 128 + int(unix.SIGKILL)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := newSpec(tree)
			spec.Argv = tt.argv
			r := runIt(t, spec)
			if r.exit.Status() != tt.want {
				t.Errorf("%v: status %d, want %d; stderr %q", r.exit, r.exit.Status(), tt.want, r.err)
			}
		})
	}
}
