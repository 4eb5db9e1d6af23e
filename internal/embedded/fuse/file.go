package main

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	pageSize = 4096
	// chooserAddress is where the chooser is mapped, above all programs.
	chooserAddress = 0x70000000
	// maxWord is the room for a word in a rule, its NUL included.
	maxWord = 32
)

// chooser is entered with argc at the stack pointer, and argv behind it:
//
//	        mov rbx, [rsp]
//	        lea r12, [rip+table]
//	next:   mov rax, [r12]          ; struct { entry, index uint64; word, later [32]byte }
//	        mov rcx, [r12+8]
//	        test rcx, rcx
//	        js found                ; the last rule, which holds for all
//	        cmp rcx, rbx
//	        jae skip                ; no such argument
//	        mov rsi, [rsp+rcx*8+8]
//	        lea rdi, [r12+16]
//	        call equal
//	        jne skip
//	        cmp byte ptr [r12+48], 0
//	        je found                ; it wants no later argument
//	later:  inc rcx
//	        cmp rcx, rbx
//	        jae skip
//	        mov rsi, [rsp+rcx*8+8]
//	        lea rdi, [r12+48]
//	        call equal
//	        jne later
//	found:  jmp rax
//	skip:   add r12, 80
//	        jmp next
//	equal:  mov dl, [rsi]
//	        cmp dl, [rdi]
//	        jne done
//	        inc rsi
//	        inc rdi
//	        test dl, dl
//	        jnz equal
//	done:   ret
//	table:
var chooser = []byte{
	0x48, 0x8b, 0x1c, 0x24, 0x4c, 0x8d, 0x25, 0x5e, 0x00, 0x00, 0x00, 0x49, 0x8b, 0x04, 0x24, 0x49,
	0x8b, 0x4c, 0x24, 0x08, 0x48, 0x85, 0xc9, 0x78, 0x37, 0x48, 0x39, 0xd9, 0x73, 0x34, 0x48, 0x8b,
	0x74, 0xcc, 0x08, 0x49, 0x8d, 0x7c, 0x24, 0x10, 0xe8, 0x2b, 0x00, 0x00, 0x00, 0x75, 0x23, 0x41,
	0x80, 0x7c, 0x24, 0x30, 0x00, 0x74, 0x19, 0x48, 0xff, 0xc1, 0x48, 0x39, 0xd9, 0x73, 0x13, 0x48,
	0x8b, 0x74, 0xcc, 0x08, 0x49, 0x8d, 0x7c, 0x24, 0x30, 0xe8, 0x0a, 0x00, 0x00, 0x00, 0x75, 0xe7,
	0xff, 0xe0, 0x49, 0x83, 0xc4, 0x50, 0xeb, 0xb3, 0x8a, 0x16, 0x3a, 0x17, 0x75, 0x0a, 0x48, 0xff,
	0xc6, 0x48, 0xff, 0xc7, 0x84, 0xd2, 0x75, 0xf0, 0xc3,
}

// extender is where a program is entered that gets one more environment variable,
// the first: argc and argv move down by a word, and the word behind them is its
// address.
//
//	mov rcx, [rsp]
//	add rcx, 2              ; argc itself, and the null behind argv
//	mov rsi, rsp
//	sub rsp, 8
//	mov rdi, rsp
//	cld
//	rep movsq
//	mov eax, variable
//	mov [rdi], rax
//	mov eax, entry
//	jmp rax
//
// The two addresses are put in by extend.
var extender = []byte{
	0x48, 0x8b, 0x0c, 0x24, 0x48, 0x83, 0xc1, 0x02, 0x48, 0x89, 0xe6, 0x48, 0x83, 0xec, 0x08, 0x48,
	0x89, 0xe7, 0xfc, 0xf3, 0x48, 0xa5, 0xb8, 0, 0, 0, 0, 0x48, 0x89, 0x07, 0xb8, 0, 0, 0, 0, 0xff, 0xe0,
}

// extend returns the extender of a program, for variable and entry.
func extend(variable, entry uint64) []byte {
	code := slices.Clone(extender)
	binary.LittleEndian.PutUint32(code[23:], uint32(variable)) // both below chooserAddress + a page
	binary.LittleEndian.PutUint32(code[31:], uint32(entry))
	return code
}

// file is an executable in the making.
type file struct {
	env      string   // what all programs but the first get
	zero     []string // variables of theirs, eight bytes each, that are 0
	data     bytes.Buffer
	segments []elf.Prog64
	rules    bytes.Buffer
}

// add appends a program and returns where it is entered.
func (f *file) add(program []byte) (uint64, error) {
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return 0, err
	}
	if e.Class != elf.ELFCLASS64 || e.Machine != elf.EM_X86_64 || e.Type != elf.ET_EXEC {
		return 0, errors.New("not a static program for x86-64 at fixed addresses")
	}
	first := f.data.Len() == 0
	if !first {
		if err := clearVariables(e, program, f.zero); err != nil {
			return 0, err
		}
		program = program[:loadedEnd(e)]
	}
	pad(&f.data)
	base := uint64(f.data.Len())
	f.data.Write(program)
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return 0, errors.New("it needs an interpreter")
		}
		if p.Type != elf.PT_LOAD && !(first && (p.Type == elf.PT_NOTE || p.Type == elf.PT_GNU_STACK)) {
			continue
		}
		s := elf.Prog64{Type: uint32(p.Type), Flags: uint32(p.Flags), Off: base + p.Off, Vaddr: p.Vaddr, Paddr: p.Paddr,
			Filesz: p.Filesz, Memsz: p.Memsz, Align: p.Align}
		if p.Type == elf.PT_LOAD {
			if err := f.free(s); err != nil {
				return 0, err
			}
		}
		f.segments = append(f.segments, s)
	}
	return e.Entry, nil
}

// loadedEnd is where what is mapped of a file ends; its sections' names and symbols
// follow.
func loadedEnd(e *elf.File) uint64 {
	var end uint64
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			end = max(end, p.Off+p.Filesz)
		}
	}
	return end
}

// clearVariables sets variables of eight bytes to 0 in the program.
func clearVariables(e *elf.File, program []byte, names []string) error {
	if len(names) == 0 {
		return nil
	}
	symbols, err := e.Symbols()
	if err != nil {
		return err
	}
	for _, name := range names {
		i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == name && s.Size == 8 })
		if i < 0 {
			return fmt.Errorf("it has no variable %s of 8 bytes", name)
		}
		at := symbols[i].Value
		j := slices.IndexFunc(e.Progs, func(p *elf.Prog) bool {
			return p.Type == elf.PT_LOAD && p.Flags&elf.PF_W != 0 && at >= p.Vaddr && at+8 <= p.Vaddr+p.Filesz
		})
		if j < 0 {
			return fmt.Errorf("variable %s has no value in the file", name)
		}
		clear(program[e.Progs[j].Off+at-e.Progs[j].Vaddr:][:8])
	}
	return nil
}

// free says whether nothing has the addresses of s.
func (f *file) free(s elf.Prog64) error {
	low, high := s.Vaddr&^(pageSize-1), s.Vaddr+s.Memsz+pageSize-1
	if high >= chooserAddress {
		return fmt.Errorf("its addresses reach %#x", high)
	}
	for _, o := range f.segments {
		if o.Type == uint32(elf.PT_LOAD) && low < o.Vaddr+o.Memsz && o.Vaddr < high && o.Off>>12 != s.Off>>12 {
			return fmt.Errorf("%#x to %#x is another program's: link it with -T", s.Vaddr, s.Vaddr+s.Memsz)
		}
	}
	return nil
}

// rule has the program at entry run when the argument of that index is word and,
// unless later is "", one behind it is later.
func (f *file) rule(index int, word, later string, entry uint64) error {
	var words [2][maxWord]byte
	for i, text := range []string{word, later} {
		if text == "" && i == 0 || len(text) >= maxWord || strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("word %q: 1 to %d bytes", text, maxWord-1)
		}
		copy(words[i][:], text)
	}
	f.put(&f.rules, entry, uint64(index), words)
	return nil
}

func (f *file) put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		_ = binary.Write(b, binary.LittleEndian, v) // fixed sizes, into memory
	}
}

// extendAll appends extenders to code, the chooser and its rules, and has the rules
// of all programs but the first lead to them.
func (f *file) extendAll(code []byte, first uint64) []byte {
	variable := chooserAddress + uint64(len(code))
	code = append(append(code, f.env...), 0)
	at := map[uint64]uint64{first: first}
	for rule := len(chooser); rule < int(variable-chooserAddress); rule += 16 + 2*maxWord {
		entry := binary.LittleEndian.Uint64(code[rule:])
		if at[entry] == 0 {
			at[entry] = chooserAddress + uint64(len(code))
			code = append(code, extend(variable, entry)...)
		}
		binary.LittleEndian.PutUint64(code[rule:], at[entry])
	}
	return code
}

// finish adds the chooser and the table of all segments, and returns the file.
func (f *file) finish(entry uint64) ([]byte, error) {
	f.put(&f.rules, entry, int64(-1), [2][maxWord]byte{})
	pad(&f.data)
	base := uint64(f.data.Len())
	code := slices.Concat(chooser, f.rules.Bytes())
	if f.env != "" {
		code = f.extendAll(code, entry)
	}
	f.segments = append(f.segments, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Off: base,
		Vaddr: chooserAddress, Paddr: chooserAddress, Filesz: uint64(len(code)), Memsz: uint64(len(code)), Align: pageSize})
	f.data.Write(code)
	pad(&f.data)
	table := uint64(f.data.Len())
	// What is loaded in the order of addresses (elf(5)), the stack's flags last, as
	// Go's linker has them and its debug/buildinfo wants them.
	order := func(p elf.Prog64) uint64 {
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			return 1 + p.Vaddr
		case elf.PT_GNU_STACK:
			return 1 << 63
		}
		return 0
	}
	slices.SortStableFunc(f.segments, func(a, b elf.Prog64) int { return cmp.Compare(order(a), order(b)) })
	if len(f.segments)*56 > pageSize {
		return nil, fmt.Errorf("%d segments: older kernels read a page of them", len(f.segments))
	}
	f.put(&f.data, f.segments)
	out := f.data.Bytes()
	binary.LittleEndian.PutUint64(out[24:], chooserAddress) // e_entry
	binary.LittleEndian.PutUint64(out[32:], table)          // e_phoff
	binary.LittleEndian.PutUint16(out[56:], uint16(len(f.segments)))
	return out, nil
}
