package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/netif"
)

const netClass = "/sys/class/net"

// networkUp loads the driver and sets the interface up, if there is to be one.
// It runs while the initramfs is the root, but in a restored machine.
func networkUp(n *agentproto.Network, saved *stage) error {
	if n == nil {
		return nil
	}
	if err := saved.load("virtio_net"); err != nil {
		return err
	}
	name, err := findInterface(netClass, n.MAC)
	if err != nil {
		return fmt.Errorf("set up the network: %w", err)
	}
	if err := configure(netClass, name, n); err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

// findInterface returns the interface with that address, or the only one that is
// not loopback.
func findInterface(class, mac string) (string, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if e.Name() == "lo" {
			continue
		}
		address, err := os.ReadFile(filepath.Join(class, e.Name(), "address"))
		if err != nil {
			continue
		}
		if mac == "" || strings.EqualFold(strings.TrimSpace(string(address)), mac) {
			found = append(found, e.Name())
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && mac == "":
		return "", errors.New("the machine has no network interface: the kernel may lack virtio_net")
	case len(found) == 0:
		return "", fmt.Errorf("the machine has no network interface with address %s", mac)
	}
	return "", fmt.Errorf("the machine has several network interfaces: %s", strings.Join(found, ", "))
}

// configure gives the interface its addresses and routes and waits for its
// carrier.
func configure(class, name string, n *agentproto.Network) error {
	raw, err := os.ReadFile(filepath.Join(class, name, "ifindex"))
	if err != nil {
		return err
	}
	index, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 31)
	if err != nil {
		return err
	}
	if err := netif.Configure(int(index), n); err != nil {
		return err
	}
	return waitCarrier(name)
}

// carrierWait bounds how long an interface may take to come up. Packets sent
// before are lost, and ARP tries again after a second only.
const carrierWait = 2 * time.Second

func waitCarrier(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(carrierWait); ; time.Sleep(100 * time.Microsecond) {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return err
		}
		if req.Uint16()&unix.IFF_RUNNING != 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("no carrier: the host's side of the network is down")
		}
	}
}

// writeNames writes hosts and resolv.conf to etc, as docker does for a container
// with a network. It runs in the final root file system.
func writeNames(etc, hostname string, n *agentproto.Network) error {
	if n == nil {
		return nil
	}
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(etc, "hosts"), netif.Hosts(hostname, n)); err != nil {
		return err
	}
	if len(n.DNS) == 0 {
		return nil
	}
	return replaceFile(filepath.Join(etc, "resolv.conf"), netif.ResolvConf(n))
}

// replaceFile writes a file in the place of whatever is there: images have links
// to what a running system would make.
func replaceFile(path, text string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
