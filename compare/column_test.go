package compare

import (
	"slices"
	"testing"
)

func TestColumns(t *testing.T) {
	for c, want := range map[Column][]string{
		"vm": {"--vm"}, "vm-warm": {"--vm", "--warm"}, "container": {"--container"},
		"container-no-seccomp": {"--container", "--security-opt=seccomp=unconfined"},
		"container-no-pid":     {"--container", "--pid=host"},
	} {
		if !c.Valid() || !slices.Equal(c.flags(), want) {
			t.Errorf("%s: %v, %q", c, c.Valid(), c.flags())
		}
	}
	shared := []string{"--network=user", "--memory=64m", "--publish=80:80"}
	for c, want := range map[Column][]string{
		"vm":                   {"--vm", "--network=user", "--memory=64m", "--publish=80:80"},
		"container-no-ipc":     {"--container", "--network=user", "--memory=64m", "--publish=80:80", "--ipc=host"},
		"container-no-network": {"--container", "--memory=64m", "--network=host"},
	} {
		if got := c.flags(shared...); !slices.Equal(got, want) || len(shared) != 3 || shared[2] != "--publish=80:80" {
			t.Errorf("%s: %q, of %q", c, got, shared)
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
