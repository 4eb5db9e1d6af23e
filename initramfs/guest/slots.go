package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/duplex-run/duplex/internal/agentproto"
)

const platformBus = "/sys/bus/platform"

// virtioPlace starts the name of a place for a virtio device, by its ACPI id.
const virtioPlace = "LNRO0005:"

// devicesUp has the kernel find the devices that this clone has and the saved machine
// had not: the network's and those of the volumes, in the places behind the others.
func devicesUp(start *agentproto.Start) error {
	n := len(start.Shares)
	if start.Network != nil {
		n++
	}
	if n == 0 {
		return nil
	}
	if err := fillPlaces(platformBus, n); err != nil {
		return fmt.Errorf("find the clone's devices: %w", err)
	}
	return nil
}

// fillPlaces binds the driver of virtio devices to the first n places where it found
// none when the machine booted. The device is there when the write returns.
func fillPlaces(bus string, n int) error {
	entries, err := os.ReadDir(filepath.Join(bus, "devices")) // sorted
	if err != nil {
		return err
	}
	bind, err := os.OpenFile(filepath.Join(bus, "drivers/virtio-mmio/bind"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = bind.Close() }()
	for _, e := range entries {
		if n == 0 {
			break
		}
		if !strings.HasPrefix(e.Name(), virtioPlace) {
			continue
		}
		_, err := os.Lstat(filepath.Join(bus, "devices", e.Name(), "driver"))
		if err == nil {
			continue // bound: a device from before
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if _, err := bind.WriteString(e.Name()); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		n--
	}
	if n > 0 {
		return fmt.Errorf("the snapshot has too few places for devices: %d more are needed", n)
	}
	return nil
}
