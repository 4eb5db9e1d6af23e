package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"
	"github.com/duplex-run/duplex/internal/workload"
)

// bundleDir is where the driver makes its bundle: the lab's own.
const bundleDir = "/tmp/bootbench-bundle"

// bundleOverhead is what a machine of `duplex oci` has beyond its bundle's limit.
const bundleOverhead = 160 << 20

// makeBundle makes a bundle that runs the image's command, with the example's
// namespaces, mounts and rights.
func (d *driver) makeBundle() error {
	bin := filepath.Join(bundleDir, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	program, err := os.ReadFile(command[0]) // the lab's root is the image
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, filepath.Base(command[0])), program, 0o755); err != nil {
		return err
	}
	example := exec.Command(d.duplex, "oci", "spec", "--bundle", bundleDir)
	example.Stderr = os.Stderr
	if err := example.Run(); err != nil {
		return err
	}
	file := filepath.Join(bundleDir, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	limit := int64(guestMemory - bundleOverhead)
	s.Process.Terminal, s.Process.Args = false, command
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	if data, err = json.Marshal(&s); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// runBundle runs it in a microVM.
func (d *driver) runBundle(ctx context.Context, c bootbench.Case) (map[string]int64, error) {
	if _, err := os.Stat(bundleDir); errors.Is(err, os.ErrNotExist) {
		if err := d.makeBundle(); err != nil {
			return nil, err
		}
	}
	cmd := exec.CommandContext(ctx, d.duplex, "oci", "--isolation=vm", "--kernel="+*d.files(c.Kernel)[3], "run", "--bundle", bundleDir, "bootbench")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := workload.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var b [1]byte
	_, err = io.ReadFull(out, b[:])
	first := workload.Now()
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return nil, err
	}
	return map[string]int64{bootbench.FirstByte: first - began}, nil
}
