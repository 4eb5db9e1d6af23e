package vmm

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// The tests here run tiny guests, a few instructions dressed as a vmlinux, on
// whatever /dev/kvm there is: they only access ports and devices, which even a
// KVM that cannot boot Linux can run. boot_test.go boots Linux.

// inLab says that these tests run in the lab, where none of them may skip.
func inLab() bool { return os.Getenv("DUPLEX_IN_LAB") == "1" }

// needKVM skips a test where the host has no KVM at all; the lab has.
func needKVM(t testing.TB) {
	t.Helper()
	sys, err := kvm.Open()
	if err == nil {
		err = sys.Close()
	}
	if err != nil && !inLab() && (errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)) {
		t.Skipf("%v; `make test` runs this test in the lab", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// program is 64-bit machine code.
type program []byte

func (p program) then(b ...byte) program { return append(p[:len(p):len(p)], b...) }

func (p program) word(v uint32) program { return binary.LittleEndian.AppendUint32(p.then(), v) }

// out is: mov $port,%dx; mov $v,%al; out %al,%dx
func (p program) out(port uint16, v ...byte) program {
	for _, b := range v {
		p = p.then(0x66, 0xba, byte(port), byte(port>>8), 0xb0, b, 0xee)
	}
	return p
}

// load is: mov $addr,%ebx; mov (%rbx),%eax
func (p program) load(addr uint32) program {
	return p.then(0xbb).word(addr).then(0x8b, 0x03)
}

// store is: mov $addr,%ebx; movl $v,(%rbx)
func (p program) store(addr, v uint32) program {
	return p.then(0xbb).word(addr).then(0xc7, 0x03).word(v)
}

// print sends EAX to the serial port, lowest byte first.
func (p program) print() program {
	p = p.then(0x66, 0xba, 0xf8, 0x03) // mov $0x3f8,%dx
	for range 4 {
		p = p.then(0xee, 0xc1, 0xe8, 0x08) // out %al,%dx; shr $8,%eax
	}
	return p
}

func (p program) powerOff() program { return p.out(portSleepControl, 0x34).spin() }
func (p program) spin() program     { return p.then(0xeb, 0xfe) }

const tinyBase = 1 << 20

// vmlinux writes p as an ELF executable that loads and starts at tinyBase.
func (p program) vmlinux(t testing.TB) string {
	t.Helper()
	var f bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Entry: tinyBase, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	ph := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Off: 120, Paddr: tinyBase,
		Filesz: uint64(len(p)), Memsz: uint64(len(p)),
	}
	for _, v := range []any{&h, &ph, []byte(p)} {
		if err := binary.Write(&f, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, f.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// syncBuffer is a console to look at.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newTiny makes a VM that runs p; configure may change its Config.
func newTiny(t testing.TB, p program, configure func(*Config)) *VM {
	t.Helper()
	needKVM(t)
	cfg := Config{Kernel: p.vmlinux(t), Memory: 4 << 20, CPUs: 1}
	if configure != nil {
		configure(&cfg)
	}
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return v
}

// run runs v for at most ten seconds.
func run(t testing.TB, v *VM) Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	exit, err := v.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}
