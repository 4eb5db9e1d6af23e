package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ValidName says whether an interface can have that name (dev_valid_name of the
// kernel), or, for a new one, whether the kernel can make one of it: "eth%d" is the
// first that is free.
func ValidName(name string, isNew bool) bool {
	if isNew {
		name = strings.Replace(name, "%d", "0", 1)
	}
	return name != "" && len(name) < unix.IFNAMSIZ && name != "." && name != ".." && !strings.ContainsAny(name, "/:% \t\n\v\f\r\x00")
}

// Move moves the interface of that name from this process's network namespace to
// another, by a name of its own unless that is empty. It keeps its permanent
// addresses of global scope, and is up there.
func Move(name, as string, to *os.File) error {
	if as == "" {
		as = name
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with its namespace
		done <- move(name, as, to)
	}()
	return <-done
}

func move(name, as string, to *os.File) error {
	from, err := openRoute()
	if err != nil {
		return err
	}
	defer from.close()
	index, err := byName(name)
	if err != nil {
		return err
	}
	c := &Config{}
	if c.Addresses, err = permanent(index); err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	if err := unix.Setns(int(to.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the other network namespace: %w", err)
	}
	there, err := links()
	if err != nil {
		return err
	}
	if _, taken := there[as]; taken {
		return fmt.Errorf("name it %s: %w", as, unix.EEXIST)
	}
	if err := from.do(unix.RTM_NEWLINK, moveBody(index, as, to)); err != nil {
		return fmt.Errorf("move it: %w", err)
	}
	now, err := links()
	if err != nil {
		return err
	}
	for other := range there {
		delete(now, other)
	}
	index, ok := now[as]
	for name, i := range now { // its name was made by the kernel
		if !ok && strings.Contains(as, "%d") && strings.HasPrefix(name, as[:strings.Index(as, "%d")]) {
			index, ok = i, true
		}
	}
	if !ok {
		return errors.New("it is not there after it was moved")
	}
	return Configure(int(index), c)
}

// byName is the number of an interface.
func byName(name string) (uint32, error) {
	list, err := links()
	if err != nil {
		return 0, err
	}
	index, ok := list[name]
	if !ok {
		return 0, unix.ENODEV
	}
	return index, nil
}

// links are this thread's network namespace's interfaces.
func links() (map[string]uint32, error) {
	data, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	return linksIn(data)
}

func linksIn(dump []byte) (map[string]uint32, error) {
	out := map[string]uint32{}
	err := each(dump, unix.RTM_NEWLINK, unix.SizeofIfInfomsg, func(head []byte, a map[uint16][]byte) {
		if name, ok := a[unix.IFLA_IFNAME]; ok {
			out[unix.ByteSliceToString(name)] = le.Uint32(head[4:]) // ifi_index
		}
	})
	return out, err
}

// permanent are the addresses of an interface that nobody has to renew, of global
// scope.
func permanent(index uint32) ([]netip.Prefix, error) {
	data, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	return permanentIn(data, index)
}

func permanentIn(dump []byte, index uint32) (out []netip.Prefix, err error) {
	err = each(dump, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg, func(head []byte, a map[uint16][]byte) {
		bits, flags, scope := int(head[1]), uint32(head[2]), head[3]
		if v := a[unix.IFA_FLAGS]; len(v) == 4 {
			flags = le.Uint32(v)
		}
		local, ok := a[unix.IFA_LOCAL] // the other end of a point-to-point link is in IFA_ADDRESS
		if !ok {
			local = a[unix.IFA_ADDRESS]
		}
		ip, _ := netip.AddrFromSlice(local)
		p := netip.PrefixFrom(ip, bits)
		if p.IsValid() && le.Uint32(head[4:]) == index && flags&unix.IFA_F_PERMANENT != 0 && scope == unix.RT_SCOPE_UNIVERSE {
			out = append(out, p)
		}
	})
	return out, err
}

// each goes through the answers of a kind, whose header is size bytes.
func each(dump []byte, kind, size int, take func(head []byte, attrs map[uint16][]byte)) error {
	list, err := syscall.ParseNetlinkMessage(dump)
	if err != nil {
		return err
	}
	for i := range list {
		if int(list[i].Header.Type) != kind || len(list[i].Data) < size {
			continue
		}
		take(list[i].Data, attributes(list[i].Data[size:]))
	}
	return nil
}

// attributes takes struct rtattr apart, up to one that is cut short. (The one of
// package syscall panics where the padding of the last is missing.)
func attributes(p []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(p) >= unix.SizeofRtAttr {
		n := int(le.Uint16(p))
		if n < unix.SizeofRtAttr || n > len(p) {
			break
		}
		out[le.Uint16(p[2:])] = p[unix.SizeofRtAttr:n]
		p = p[min((n+3)&^3, len(p)):]
	}
	return out
}

// moveBody is a struct ifinfomsg that moves an interface.
func moveBody(index uint32, name string, to *os.File) []byte {
	p := []byte{unix.AF_UNSPEC, 0, 0, 0}
	p = le.AppendUint32(p, index)
	p = append(p, make([]byte, 8)...) // no flags change
	p = attribute(p, unix.IFLA_IFNAME, append([]byte(name), 0))
	return attribute(p, unix.IFLA_NET_NS_FD, le.AppendUint32(nil, uint32(to.Fd())))
}
