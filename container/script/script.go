package script

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Addr is an address in the process of the script.
type Addr uint64

// Where the script is mapped, and how long it may be, in bytes.
const (
	base    = 0x70000000
	maxSize = 0x1000000
)

// The header: the first call, the one at hand, the last error that was not expected,
// and where that was.
const (
	offFirst = 8 * iota
	offAt
	offErrno
	offFailed
	headerSize
)

// Errno is a word: 0, or the last error that a call was not told to expect.
const Errno Addr = base + offErrno

// callSize is the size of a call in the script: its number, six arguments, flags,
// where its result goes, the error that is none, where that leads, where others do.
const callSize = 96

// ignoreErrors of a call's flags; those below say which arguments are words.
const ignoreErrors = 1 << 8

// branchNumber in place of a system call's.
const branchNumber = ^uint64(0)

// Arg is an argument of a call.
type Arg struct {
	value uint64
	word  bool
}

// Val is an argument that is known.
func Val[T ~int | ~int32 | ~uint32 | ~uint64 | ~uintptr](v T) Arg { return Arg{value: uint64(v)} }

// Of is the word at a as an argument, with what is there by then.
func Of(a Addr) Arg { return Arg{uint64(a), true} }

// Label is a call to jump to, by its name in the part that is being written.
type Label string

// Call is a system call.
type Call struct {
	Number uintptr
	Args   []Arg // up to five of them words
	Result Addr  // a word for what it returns; 0 for none
	// Ignore: whatever it returns, the next call is next.
	Ignore bool
	// Tolerate is an error after which it goes on, at Then, or the next call.
	Tolerate syscall.Errno
	Then     Label
	// Fail is where another error leads. "" ends the process with status 125, and
	// Failure says why.
	Fail Label
}

// Script is written by one process and carried out by another.
type Script struct {
	file *os.File
	mem  []byte // what there is of it; flushed bytes are written
	done int    // flushed

	calls  []pending
	labels map[Label]int // of calls
	step   string
	steps  []step
	more   Addr // where the last part leads
	err    error
}

// step is the name of the calls from an address on.
type step struct {
	from Addr
	name string
}

type pending struct {
	Call
	branch      bool
	mask, equal uint64
	word        Addr
	to          Label
	step        string
}

// New makes an empty script.
func New() (*Script, error) {
	fd, err := unix.MemfdCreate("duplex-list", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("duplex-list", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return &Script{file: os.NewFile(uintptr(fd), "script"), mem: make([]byte, headerSize, 16<<10)}, nil
}

// File is what the process has as Program's descriptor.
func (s *Script) File() *os.File { return s.file }

// Close lets go of the script; the process keeps it.
func (s *Script) Close() error { return s.file.Close() }

// Bytes puts b into the script, at a multiple of eight.
func (s *Script) Bytes(b []byte) Addr {
	s.mem = append(s.mem, make([]byte, -len(s.mem)&7)...)
	a := Addr(base + len(s.mem))
	s.mem = append(s.mem, b...)
	return a
}

// String puts text into the script, with a zero byte behind it. One that has a
// zero byte itself is an error of Flush.
func (s *Script) String(text string) Addr {
	for i := range len(text) {
		if text[i] == 0 && s.err == nil {
			s.err = fmt.Errorf("%q has a zero byte", text)
		}
	}
	return s.Bytes(append([]byte(text), 0))
}

// Words puts words into the script.
func (s *Script) Words(list ...uint64) Addr {
	b := make([]byte, 0, 8*len(list))
	for _, v := range list {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return s.Bytes(b)
}

// Strings puts a list of strings into the script, as execve(2) takes it.
func (s *Script) Strings(list []string) Addr {
	words := make([]uint64, 0, len(list)+1)
	for _, text := range list {
		words = append(words, uint64(s.String(text)))
	}
	return s.Words(append(words, 0)...)
}

// Step names the calls that follow, for Failure.
func (s *Script) Step(name string) { s.step = name }

// Label names the next call; in each part anew.
func (s *Script) Label(l Label) {
	if s.labels == nil {
		s.labels = map[Label]int{}
	}
	s.labels[l] = len(s.calls)
}

// Add adds a call.
func (s *Script) Add(c Call) { s.calls = append(s.calls, pending{Call: c, step: s.step}) }

// Call is Add of a call that has to succeed.
func (s *Script) Call(number uintptr, args ...Arg) { s.Add(Call{Number: number, Args: args}) }

// Branch goes on at to if the word at a, of it the bits of mask, is equal.
func (s *Script) Branch(a Addr, mask, equal uint64, to Label) {
	s.calls = append(s.calls, pending{branch: true, word: a, mask: mask, equal: equal, to: to, step: s.step})
}

// Jump goes on at to.
func (s *Script) Jump(to Label) { s.Branch(base, 0, 0, to) }

// Flush writes what was added as one part, which goes on where the next one begins.
// The process must not come to its end before that is flushed, too.
func (s *Script) Flush() error {
	if s.err != nil {
		return s.err
	}
	s.mem = append(s.mem, make([]byte, -len(s.mem)&7)...)
	first := Addr(base + len(s.mem))
	at := func(l Label) uint64 {
		if l == "" {
			return 0
		}
		i, ok := s.labels[l]
		if !ok {
			s.err = fmt.Errorf("there is no %q", l)
		}
		return uint64(first) + uint64(i)*callSize
	}
	for i, c := range s.calls {
		if n := len(s.steps); n == 0 || s.steps[n-1].name != c.step {
			s.steps = append(s.steps, step{first + Addr(i)*callSize, c.step})
		}
		s.mem = c.encode(s.mem, at)
	}
	last := pending{branch: true, word: base} // its target is the next part's
	s.mem = last.encode(s.mem, at)
	s.calls, s.labels = nil, nil
	if s.err == nil && len(s.mem) > maxSize {
		s.err = fmt.Errorf("%d bytes: %w", len(s.mem), unix.E2BIG)
	}
	if s.err != nil {
		return s.err
	}
	if _, s.err = s.file.WriteAt(s.mem[s.done:], int64(s.done)); s.err != nil {
		return s.err
	}
	link := s.more
	if s.done == 0 {
		link = base + offFirst
	}
	s.done, s.more = len(s.mem), Addr(base+len(s.mem)-callSize+4*8)
	_, s.err = s.file.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(first)), int64(link-base))
	return s.err
}

func (c *pending) encode(mem []byte, at func(Label) uint64) []byte {
	var w [callSize / 8]uint64
	if c.branch {
		w[0], w[1], w[2], w[3], w[4] = branchNumber, uint64(c.word), c.mask, c.equal, at(c.to)
	} else {
		w[0] = uint64(c.Number)
		for i, a := range c.Args {
			w[1+i] = a.value
			if a.word {
				w[7] |= 1 << i
			}
		}
		if c.Ignore {
			w[7] |= ignoreErrors
		}
		w[8], w[9], w[10], w[11] = uint64(c.Result), uint64(c.Tolerate), at(c.Then), at(c.Fail)
	}
	for _, v := range w {
		mem = binary.LittleEndian.AppendUint64(mem, v)
	}
	return mem
}

// Word reads the word at a, as the process has left it.
func (s *Script) Word(a Addr) (uint64, error) {
	var b [8]byte
	if _, err := s.file.ReadAt(b[:], int64(a-base)); err != nil {
		return 0, fmt.Errorf("read the script: %w", err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Failure is the step of the last call that failed without being told to expect it,
// and its error; where there is none, the step at which the process is,
// and 0.
func (s *Script) Failure() (step string, errno syscall.Errno) {
	n, err := s.Word(Errno)
	if err != nil {
		return "", 0
	}
	where := Addr(base + offAt)
	if n != 0 {
		where = base + offFailed
	}
	at, err := s.Word(where)
	if err != nil {
		return "", 0
	}
	for _, p := range s.steps { // in the order of their addresses
		if p.from <= Addr(at) {
			step = p.name
		}
	}
	return step, syscall.Errno(n)
}
