package main

import (
	"os"
	"testing"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

const smaps = `00400000-00a00000 r-xp 00000000 00:1 7 /usr/bin/duplex
Size:               6144 kB
Rss:                4096 kB
Pss:                2048 kB
Anonymous:             0 kB
VmFlags: rd ex
c000000000-c000400000 rw-p 00000000 00:00 0
Size:               4096 kB
Pss:                1000 kB
Anonymous:          1000 kB
Swap:                  0 kB
7f0000000000-7f000fc00000 rw-p 00000000 00:00 0
Size:             258048 kB
Pss:               81920 kB
Anonymous:         81920 kB
7f1000000000-7f1000001000 rw-s 00000000 00:0d 1 anon_inode:kvm-vcpu:0
Size:                  4 kB
Pss:                   4 kB
Anonymous:             0 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
Size:                132 kB
Pss:                  24 kB
Anonymous:            24 kB
`

func TestSmaps(t *testing.T) {
	m := vmmbench.Memory{}
	for range 2 { // two processes
		if err := addSmaps(&m, []byte(smaps), guestMemory); err != nil {
			t.Fatal(err)
		}
	}
	want := vmmbench.Memory{Guest: 2 * 81920 << 10, Program: 2 * 2048 << 10, Heap: 2 * 1024 << 10, Other: 2 * 4 << 10, Private: 2 * 1024 << 10}
	if m != want {
		t.Errorf("got %+v, want %+v", m, want)
	}
	if err := addSmaps(&m, []byte("1-2 rw-p 0 0 0\nSize: 4 kB\nPss: 4 kB\nSwap: 4 kB\n"), guestMemory); err == nil {
		t.Error("memory that is swapped out is not noticed")
	}
}

// This process's own mappings, whatever they are, add up.
func TestMachineMemory(t *testing.T) {
	m, err := machineMemory([]int{os.Getpid()}, guestMemory)
	if err != nil {
		t.Fatal(err)
	}
	if m.Processes < 1 || m.Program == 0 || m.Heap == 0 || m.Guest != 0 {
		t.Errorf("got %+v", m)
	}
}

// The driver gets what the host tells it.
func TestDriverArguments(t *testing.T) {
	want := driver{duplex: "/d", qemu: "/q", kernel: "/k", initrd: "/i", suites: "blk,fs", runs: 3, kicks: true}
	var got driver
	if err := got.flags().Parse(vmmbench.Arguments(want.flags())); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
