// Package netns runs tests on a small host of their own: network and mount
// namespaces with loopback, an "outside" to talk to, an empty /run and a
// /dev/net/tun that users may open.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Outside is an address of the small host that is none of loopback.
const Outside = "10.97.0.1"

// inside is set in what runs there.
const inside = "DUPLEX_TEST_HOST"

// Inside says whether this process runs on such a host.
func Inside() bool { return os.Getenv(inside) != "" }

// Run runs the calling test again on a host of its own and returns false, and
// true in that process. It needs root.
func Run(t *testing.T) bool {
	t.Helper()
	if Inside() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "DUPLEX_RUNTIME="+t.TempDir())
	out, err := Output(cmd)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("on a host of its own: %v\n%s", err, out)
	}
	return false
}

// Output is cmd.CombinedOutput on such a host.
func Output(cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(cmd.Env, inside+"=1")
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread's namespaces go with it
		err := prepare()
		if err == nil {
			err = cmd.Run()
		}
		done <- err
	}()
	err := <-done
	return out.Bytes(), err
}

// prepare gives the calling thread the namespaces.
func prepare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := errors.Join(
		unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
		unix.Mknod("/run/tun", unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))), unix.Chmod("/run/tun", 0o666),
		unix.Mount("/run/tun", "/dev/net/tun", "", unix.MS_BIND, ""),
		unix.Mount("sysfs", "/sys", "sysfs", 0, ""), // of this network namespace
	); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return outside()
}

// outside brings loopback up, with the address.
func outside() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(Outside), Mask: net.CIDRMask(32, 32)}}
	return errors.Join(netlink.AddrAdd(lo, addr), netlink.LinkSetUp(lo))
}
