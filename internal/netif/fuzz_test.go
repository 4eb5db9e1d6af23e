package netif

import (
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever an answer of rtnetlink holds, reading it ends with what is in it or an
// error; what is read has the form of a name and of an address.
func FuzzDump(f *testing.F) {
	for _, ask := range []int{unix.RTM_GETLINK, unix.RTM_GETADDR} {
		data, err := syscall.NetlinkRIB(ask, unix.AF_UNSPEC)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, a := range []string{"10.0.0.1/8", "fd00::1/64"} {
		body := addressBody(1, netip.MustParsePrefix(a))
		f.Add(request(unix.RTM_NEWADDR, 1, body))
		f.Add(request(unix.RTM_NEWADDR, 1, body[:len(body)-3]))
	}
	f.Add(request(unix.RTM_NEWLINK, 1, moveBody(3, "eth0", os.Stdin)))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := linksIn(data)
		for name := range list {
			if err == nil && strings.ContainsRune(name, 0) {
				t.Errorf("name %q", name)
			}
		}
		addresses, err := permanentIn(data, 1)
		for _, p := range addresses {
			if err == nil && !p.IsValid() {
				t.Errorf("address %v", p)
			}
		}
		_, _ = acknowledged(data, 1)
	})
}
