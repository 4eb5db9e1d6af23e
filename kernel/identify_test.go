package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

func TestFilesThatAreNoKernel(t *testing.T) {
	good := bzImageOf(gzipped(t, smallELF(nil)))
	le := binary.LittleEndian
	edit := func(f func(img []byte)) []byte {
		img := bytes.Clone(good)
		f(img)
		return img
	}
	vmlinux := smallELF(nil)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                 {nil, "neither"},
		"text":                  {[]byte(strings.Repeat("milk, bread\n", 100)), "neither"},
		"header cut":            {good[:0x240], "neither"},
		"no boot flag":          {edit(func(b []byte) { b[offBootFlag] = 0 }), "neither"},
		"old protocol":          {edit(func(b []byte) { le.PutUint16(b[offProtocol:], 0x204) }), "2.04"},
		"payload cut":           {good[:len(good)-100], "truncated"},
		"payload empty":         {edit(func(b []byte) { le.PutUint32(b[offPayloadLength:], 0) }), "truncated"},
		"payload far out":       {edit(func(b []byte) { le.PutUint32(b[offPayloadOffset:], 0xffffffff) }), "truncated"},
		"payload length wraps":  {edit(func(b []byte) { le.PutUint32(b[offPayloadLength:], 0xffffffff) }), "truncated"},
		"version far out":       {edit(func(b []byte) { le.PutUint16(b[offKernelVersion:], 0xffff) }), "version"},
		"version not text":      {edit(func(b []byte) { copy(b[0x500:], "\x1b[2J") }), "not text"},
		"elf header cut":        {vmlinux[:40], "vmlinux"},
		"elf segment cut":       {vmlinux[:len(vmlinux)/2], "truncated"},
		"elf 32-bit":            {append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 200)...), "vmlinux"},
		"elf for arm":           {withMachine(vmlinux, 183), "EM_AARCH64"},
		"elf without segments":  {withPhnum(vmlinux, 0), "no segment"},
		"elf that is no kernel": {bytes.ReplaceAll(vmlinux, []byte("Linux version"), []byte("Minix version")), "no Linux kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Find(writeTemp(t, "kernel", c.data))
			var werr *workload.Error
			if !errors.As(err, &werr) || werr.Remedy == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q and a remedy", err, c.want)
			}
		})
	}
	for name, path := range map[string]string{"directory": t.TempDir() + "/", "device": "/dev/null", "nothing": "/no/such"} {
		if _, err := Find(path); err == nil {
			t.Errorf("%s was taken for a kernel", name)
		}
	}
}

func withMachine(elf []byte, machine uint16) []byte {
	b := bytes.Clone(elf)
	binary.LittleEndian.PutUint16(b[18:], machine)
	return b
}

func withPhnum(elf []byte, n uint16) []byte {
	b := bytes.Clone(elf)
	binary.LittleEndian.PutUint16(b[56:], n)
	return b
}

func TestScanFindsAcrossChunks(t *testing.T) {
	const step = 1 << 20
	for _, at := range []int{0, 1, step - 14, step - 7, step - 1, step, step + 1, 3*step - 3} {
		data := make([]byte, 3*step+600)
		copy(data[at:], banner+"1.2.3 x\x00")
		got, err := bannerVersion(bytes.NewReader(data), int64(len(data)))
		if err != nil || got != "1.2.3 x" {
			t.Errorf("banner at %d: got %q, %v", at, got, err)
		}
	}
}

func TestContentIDFollowsTheFile(t *testing.T) {
	t.Setenv("DUPLEX_CACHE", t.TempDir())
	var paths [2]string
	for i := range paths {
		img := bzImageOf(gzipped(t, smallELF([]byte{byte(i)})))
		k, err := Find(writeTemp(t, "bzImage", img))
		if err != nil {
			t.Fatal(err)
		}
		if paths[i], err = k.Vmlinux(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if paths[0] == paths[1] {
		t.Error("two kernels got the same vmlinux")
	}
}
