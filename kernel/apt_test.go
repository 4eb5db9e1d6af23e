package kernel

import (
	"strings"
	"testing"
)

func TestParseDepends(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want packageRef
		err  string
	}{
		"debian 12": {"Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSize: 1\n",
			packageRef{"linux-image-6.1.0-56-cloud-amd64", "6.1.192-2"}, ""},
		"among others": {"Depends: kmod, linux-image-6.12.9+bpo-cloud-amd64 (= 6.12.9-1~bpo12+1), foo (>= 1)\n",
			packageRef{"linux-image-6.12.9+bpo-cloud-amd64", "6.12.9-1~bpo12+1"}, ""},
		"no package":   {"", packageRef{}, "do not have it"},
		"no kernel":    {"Depends: kmod, foo (= 1)\n", packageRef{}, "kmod"},
		"path in name": {"Depends: linux-image-1/../../x (= 1)\n", packageRef{}, "depends on no"},
		"an option":    {"Depends: linux-image-1 (= -oFoo=1)\n", packageRef{}, "depends on no"},
	} {
		got, err := parseDepends(c.in)
		if got != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestReadStatus(t *testing.T) {
	var got []float64
	readStatus(strings.NewReader("pmstatus:x:1:y\ndlstatus:1:0:a\ndlstatus:1:50.5:b:c\ndlstatus:1:x:d\ngarbage\n"), func(p float64) { got = append(got, p) })
	if len(got) != 2 || got[0] != 0 || got[1] != 50.5 {
		t.Errorf("got %v, want 0 and 50.5", got)
	}
}
