package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// prepare takes off a module what costs the guest time and gives it nothing. A
// module that is not what it should be stays as it is: the guest's kernel says
// what is wrong with it.
//
//   - The signature: checking it (RSA and a hash over the file) takes three quarters
//     of the time of loading, and the host has just read the same file from where it
//     keeps the kernel. The kernel notes it as a taint (E). A kernel that insists on
//     signatures gets the file as it is; signed says so.
//   - The list of the functions that can be traced: the kernel looks up the name of
//     each of them in a list, from its start (Linux kernel/trace/ftrace.c,
//     ftrace_module_enable). For kvm.ko that is half a second of instruction time.
//     The function tracer does not see the module's functions then; kprobes do.
func prepare(module []byte, signed bool) []byte {
	if signed {
		return module
	}
	return untraced(unsigned(module))
}

// signatureMagic ends a signed module: Linux scripts/sign-file.c,
// kernel/module/signing.c.
const signatureMagic = "~Module signature appended~\n"

// unsigned returns the module without its signature: the file ends with
// {8 bytes of ids and lengths, be32 length of the signature}, magic.
func unsigned(module []byte) []byte {
	body, ok := bytes.CutSuffix(module, []byte(signatureMagic))
	const trailer = 12
	if !ok || len(body) < trailer {
		return module
	}
	n := binary.BigEndian.Uint32(body[len(body)-4:])
	if uint64(n)+trailer > uint64(len(body)) {
		return module
	}
	return body[:len(body)-trailer-int(n)]
}

// The section that lists the functions that can be traced, and the name it gets,
// which the kernel does not look for. They are as long as each other.
const (
	tracedSection   = "__mcount_loc\x00"
	untracedSection = ".duplex.none\x00"
)

// untraced renames the section in the table of the sections' names. The module may
// be changed.
func untraced(module []byte) []byte {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return module
	}
	names := f.Section(".shstrtab")
	if names == nil || names.Type != elf.SHT_STRTAB || names.Offset > uint64(len(module)) || names.FileSize > uint64(len(module))-names.Offset {
		return module
	}
	table := module[names.Offset : names.Offset+names.FileSize]
	if i := bytes.Index(table, []byte(tracedSection)); i >= 0 {
		copy(table[i:], untracedSection)
	}
	return module
}
