package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/trace"
)

// starts is how often a machine is started on this host.
const starts = 21

// native measures on this host, with a guest of a few instructions: the time from
// exec to the first KVM_RUN, and the memory of a machine whose guest is idle.
func native(ctx context.Context, duplex string) ([]vmmbench.Record, error) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: not measured on this host:", err)
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "vmmbench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// mov $0x3f8,%dx; mov $'R',%al; out %al,%dx; mov $'\n',%al; out %al,%dx; hlt; jmp -3
	halts := []byte{0x66, 0xba, 0xf8, 0x03, 0xb0, 'R', 0xee, 0xb0, '\n', 0xee, 0xf4, 0xeb, 0xfd}
	// mov $0x600,%dx; mov $0x34,%al; out %al,%dx; jmp -2: the ACPI sleep register
	powersOff := []byte{0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xeb, 0xfe}
	idle, short := filepath.Join(dir, "idle"), filepath.Join(dir, "short")
	if err := errors.Join(writeELF(idle, halts), writeELF(short, powersOff)); err != nil {
		return nil, err
	}
	var records []vmmbench.Record
	for i := range starts {
		ns, err := startTime(ctx, duplex, short, filepath.Join(dir, "trace"))
		if err != nil {
			return nil, err
		}
		records = append(records, vmmbench.Record{
			Monitor: vmmbench.Duplex, Run: i, Name: vmmbench.RecordStart, Measure: vmmbench.Measure{Ops: 1, Ns: ns},
		})
	}
	m, err := idleMemory(ctx, duplex, idle)
	if err != nil {
		return records, err
	}
	return append(records, vmmbench.Record{Monitor: vmmbench.Duplex, Name: vmmbench.RecordIdle, Memory: m}), nil
}

func bootTiny(ctx context.Context, duplex, kernel string, more ...string) *exec.Cmd {
	return exec.CommandContext(ctx, duplex, append([]string{"boot", "--lab=never", "--kernel=" + kernel,
		"--memory=" + mib(guestMemory) + "m", "--cmdline=x"}, more...)...)
}

// startTime is the time from before the process is made to its first KVM_RUN.
func startTime(ctx context.Context, duplex, kernel, file string) (int64, error) {
	cmd := bootTiny(ctx, duplex, kernel, "--serial=none", "--trace="+file)
	cmd.Stderr = os.Stderr
	var began unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &began); err != nil {
		return 0, err
	}
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	t, err := trace.NewReader(f)
	if err != nil {
		return 0, err
	}
	for {
		var r trace.Record
		if err := t.Next(&r); err != nil {
			return 0, fmt.Errorf("find the first KVM_RUN in the trace: %w", err)
		}
		if r.Kind == trace.Event && r.Addr == uint64(vmm.Entered) {
			return t.Header.Start + int64(r.Time) - began.Nano(), nil
		}
	}
}

// idleMemory is the memory of a machine whose guest has printed a line and halts.
func idleMemory(ctx context.Context, duplex, kernel string) (*vmmbench.Memory, error) {
	cmd := bootTiny(ctx, duplex, kernel, "--serial=stdio")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	var b [1]byte
	if _, err := out.Read(b[:]); err != nil {
		return nil, fmt.Errorf("wait for the guest: %w", err)
	}
	time.Sleep(3 * time.Second) // idle, as most machines are most of the time, and past its start
	return machineMemory([]int{cmd.Process.Pid}, guestMemory)
}

// writeELF writes code as a kernel: an executable that is loaded at 1 MiB.
func writeELF(path string, code []byte) error {
	const base, offset = 1 << 20, 64 + 56
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: base, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: offset, Paddr: base, Filesz: uint64(len(code)), Memsz: uint64(len(code))}
	var b bytes.Buffer
	for _, v := range []any{&h, &p, code} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
