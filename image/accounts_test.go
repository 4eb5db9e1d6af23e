package image

import (
	"math"
	"testing"
)

// Whatever an image's files of accounts hold, and whoever is asked for: nobody
// gets a number that means "no change" to the kernel, or one that wraps around.
func FuzzAccounts(f *testing.F) {
	f.Add("web:staff", "staff", []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:w:/var/www:/bin/false\n"), []byte("staff:x:50:root,web\n"))
	f.Add("4294967295", "-1", []byte("root:x:4294967295:-1::/:\n:::\n"), []byte("root:x:4294967296:\nx"))
	f.Add("", "", []byte("root"), []byte(":"))
	f.Fuzz(func(t *testing.T, spec, more string, passwd, group []byte) {
		u, err := lookUp(spec, []string{more}, passwd, group)
		if err != nil {
			return
		}
		for _, id := range append(u.Groups, u.UID, u.GID) {
			if id > math.MaxInt32 {
				t.Errorf("%q and %q are %+v", spec, more, u)
			}
		}
	})
}
