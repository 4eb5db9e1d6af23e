package compare

import (
	"slices"
	"testing"
)

func TestColumns(t *testing.T) {
	for c, want := range map[Column][]string{
		"vm": {"--isolation=vm"}, "vm-warm": {"--isolation=vm", "--warm"}, "container": {"--isolation=container"},
		"container-no-seccomp": {"--isolation=container", "--security-opt=seccomp=unconfined"},
		"container-no-pid":     {"--isolation=container", "--pid=host"},
	} {
		if !c.Valid() || !slices.Equal(c.flags(), want) {
			t.Errorf("%s: %v, %q", c, c.Valid(), c.flags())
		}
	}
	for _, c := range []Column{"", "vms", "container-no-", "container-no-mount", "container-", "vm-no-seccomp"} {
		if c.Valid() {
			t.Errorf("%q is taken", c)
		}
	}
	for _, l := range Layers() {
		if c := Column(without + l); !c.Valid() || !c.Container() {
			t.Errorf("%s is not a container", c)
		}
	}
}
