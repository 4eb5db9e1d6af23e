package oci

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/duplex-run/duplex/internal/console"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/oci/cgroups"
)

// word is what commands say to a machine's supervisor, and that to the runtime in
// the guest, one JSON object a line; and the answer. What comes from a guest is
// not trusted.
type word struct {
	Op     wordOp         `json:"op,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"` // kill, signal
	All    bool           `json:"all,omitempty"`    // kill

	Process json.RawMessage   `json:"process,omitempty"` // exec: a specs.Process
	Size    *workload.WinSize `json:"size,omitempty"`    // exec, signal: of the terminal

	// Of an answer:
	Error  string         `json:"error,omitempty"`
	Remedy string         `json:"remedy,omitempty"`
	Status int            `json:"status,omitempty"` // of the error, or exec's
	Procs  []GuestProcess `json:"procs,omitempty"`  // ps
	Stats  *cgroups.Stats `json:"stats,omitempty"`  // stats
	OOM    uint64         `json:"oom,omitempty"`    // stats: processes killed for want of memory
}

type wordOp string

const (
	opStart wordOp = "start"
	opKill  wordOp = "kill"
	opPS    wordOp = "ps"
	opStats wordOp = "stats"
	// These are the supervisor's alone; opExec is followed by any number of opSignal.
	opPause  wordOp = "pause"
	opResume wordOp = "resume"
	opExec   wordOp = "exec"
	opSignal wordOp = "signal"
)

// GuestProcess is a process of a container in a microVM, as its guest sees it.
type GuestProcess struct {
	PID  int    `json:"pid"`
	PPID int    `json:"ppid"`
	UID  int    `json:"uid"`
	Args string `json:"args"`
}

// maxWord bounds a word, in bytes.
const maxWord = 1 << 20

// errorWord is the answer that says why not; err may be nil.
func errorWord(err error) word {
	if err == nil {
		return word{}
	}
	w := word{Error: err.Error()}
	w.Remedy, w.Status = workload.Advice(err)
	return w
}

// err is the reverse of errorWord.
func (w word) err() error {
	if w.Error == "" {
		return nil
	}
	status := w.Status
	if status < 1 || status > 255 {
		status = workload.StatusError
	}
	return &workload.Error{Op: "in the microVM", Err: errors.New(console.Printable(w.Error)), Remedy: console.Printable(w.Remedy), Status: status}
}

// talk is one end of a conversation in which each question has one answer.
type talk struct {
	mu sync.Mutex
	w  io.Writer
	in *bufio.Scanner
}

func newTalk(f *os.File) *talk { return newTalkOf(f, f) }

func newTalkOf(w io.Writer, r io.Reader) *talk {
	t := &talk{w: w, in: bufio.NewScanner(r)}
	t.in.Buffer(make([]byte, 0, 4<<10), maxWord)
	return t
}

func (t *talk) say(w word) error {
	b, err := json.Marshal(w)
	if err == nil && len(b) >= maxWord {
		err = fmt.Errorf("an answer of %d bytes", len(b))
	}
	if err == nil {
		_, err = t.w.Write(append(b, '\n'))
	}
	return err
}

// hear reads one word; io.EOF means that the other end is gone.
func (t *talk) hear() (word, error) {
	if !t.in.Scan() {
		if err := t.in.Err(); err != nil {
			return word{}, err
		}
		return word{}, io.EOF
	}
	return parseWord(t.in.Bytes())
}

func parseWord(line []byte) (word, error) {
	var w word
	if err := json.Unmarshal(line, &w); err != nil {
		return word{}, fmt.Errorf("parse a word of a machine: %w", err)
	}
	return w, nil
}

// ask says q and returns the answer, or the error that it is.
func (t *talk) ask(q word) (word, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.say(q); err != nil {
		return word{}, err
	}
	a, err := t.hear()
	if err == nil {
		err = a.err()
	}
	return a, err
}
