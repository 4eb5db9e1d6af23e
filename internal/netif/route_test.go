package netif

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"10.0.2.15/24": "10.0.2.255", "10.0.2.15/30": "10.0.2.15", "10.0.2.1/0": "255.255.255.255"} {
		if got := net.IP(broadcast(netip.MustParsePrefix(prefix))).String(); got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

func TestAcknowledged(t *testing.T) {
	ack := func(kind uint16, seq uint32, errno int32) []byte {
		p := le.AppendUint32(nil, 36)
		p = le.AppendUint16(p, kind)
		p = le.AppendUint16(p, 0)
		p = le.AppendUint32(p, seq)
		p = le.AppendUint32(p, 0)
		return append(le.AppendUint32(p, uint32(errno)), make([]byte, 16)...)
	}
	for name, c := range map[string]struct {
		p    []byte
		done bool
		err  error
	}{
		"fine":           {ack(unix.NLMSG_ERROR, 7, 0), true, nil},
		"refused":        {ack(unix.NLMSG_ERROR, 7, -int32(unix.EEXIST)), true, unix.EEXIST},
		"another's":      {ack(unix.NLMSG_ERROR, 6, -1), false, nil},
		"something else": {ack(unix.RTM_NEWLINK, 7, 0), false, nil},
		"short":          {make([]byte, 19), true, errShort},
	} {
		if done, err := acknowledged(c.p, 7); done != c.done || err != c.err {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}
