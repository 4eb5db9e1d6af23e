package runs

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

// Type says what a Message is.
type Type string

// The types. The first message of a connection is one of the first five; of those
// only Exec and Attach are followed by others of the caller.
const (
	Exec   Type = "exec"   // Exec; three files: stdin, stdout, stderr
	Attach Type = "attach" // Size; three files
	Signal Type = "signal" // Number
	Stats  Type = "stats"
	Wait   Type = "wait"

	Resize Type = "resize" // Size

	// Of the run.
	Started Type = "started" // the command of Exec runs; Attach is attached
	Done    Type = "done"    // Signal: it was sent
	Counts  Type = "counts"  // Stats
	Ended   Type = "ended"   // Exit: of the command, or of the run
	Failed  Type = "failed"  // Failure
)

// Message is one message of either direction; which fields count depends on Type.
type Message struct {
	Type    Type              `json:"type"`
	Exec    *Command          `json:"exec,omitempty"`
	Number  int               `json:"number,omitempty"`
	Size    *workload.WinSize `json:"size,omitempty"`
	Stats   *workload.Stats   `json:"stats,omitempty"`
	Exit    *workload.Exit    `json:"exit,omitempty"`
	Failure *Failure          `json:"failure,omitempty"`
}

// Command is a further command in a run.
type Command struct {
	Argv        []string         `json:"argv"`
	Env         []string         `json:"env,omitempty"` // on top of the workload's
	Cwd         string           `json:"cwd,omitempty"` // "" is the workload's
	User        string           `json:"user,omitempty"`
	TTY         bool             `json:"tty,omitempty"`
	Size        workload.WinSize `json:"size,omitzero"`
	Interactive bool             `json:"interactive,omitempty"`
	Detach      bool             `json:"detach,omitempty"`
}

// Failure is a *workload.Error on its way.
type Failure struct {
	Op     string `json:"op"`
	Err    string `json:"err"`
	Remedy string `json:"remedy,omitempty"`
	Status int    `json:"status,omitempty"`
}

func (f *Failure) error() error {
	e := &workload.Error{Op: f.Op, Remedy: f.Remedy, Status: f.Status}
	if f.Err != "" {
		e.Err = errors.New(f.Err)
	}
	return e
}

func failureOf(op string, err error) *Failure {
	var own *workload.Error
	if errors.As(err, &own) {
		f := &Failure{Op: own.Op, Remedy: own.Remedy, Status: own.Status}
		if own.Err != nil {
			f.Err = own.Err.Error()
		}
		return f
	}
	return &Failure{Op: op, Err: err.Error()}
}

const (
	// maxMessage bounds one message: argv and env have their own bound in the
	// kernel, a quarter of the stack limit, 2 MiB by default.
	maxMessage = 8 << 20
	maxSignal  = 64
	maxFiles   = 3
)

var errIncomplete = errors.New("field missing or out of range")

// check validates a message of either direction.
func (m *Message) check() error {
	ok := false
	switch m.Type {
	case Exec:
		ok = m.Exec != nil && m.Exec.check()
	case Attach, Resize:
		ok = m.Size != nil
	case Signal:
		ok = m.Number > 0 && m.Number <= maxSignal
	case Counts:
		ok = m.Stats != nil
	case Ended:
		ok = m.Exit != nil && m.Exit.Code >= 0 && m.Exit.Code <= 255 && m.Exit.Signal >= 0 && m.Exit.Signal <= maxSignal
	case Failed:
		ok = m.Failure != nil
	case Stats, Wait, Started, Done:
		ok = true
	default:
		return fmt.Errorf("unknown message %q", m.Type)
	}
	if !ok {
		return fmt.Errorf("message %q: %w", m.Type, errIncomplete)
	}
	return nil
}

func (c *Command) check() bool {
	for _, list := range [][]string{c.Argv, c.Env, {c.Cwd, c.User}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return false
			}
		}
	}
	return len(c.Argv) > 0 && (c.Cwd == "" || strings.HasPrefix(c.Cwd, "/"))
}

// write sends a message, with files if there are any.
func write(c *net.UnixConn, m *Message, files ...*os.File) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("message of %d bytes: more than %d", len(body), maxMessage)
	}
	frame := append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
	if len(files) == 0 {
		_, err := c.Write(frame)
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	// Descriptors come with the first byte.
	n, _, err := c.WriteMsgUnix(frame[:1], unix.UnixRights(fds...), nil)
	if err != nil {
		return err
	}
	_, err = c.Write(frame[n:])
	return err
}

// receive receives a message and the files that come with it, which are the caller's.
func receive(c *net.UnixConn) (*Message, []*os.File, error) {
	var first [1]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.ReadMsgUnix(first[:], oob)
	if err != nil {
		return nil, nil, err
	}
	files, err := attached(oob[:oobn])
	if err == nil && n == 0 {
		err = io.EOF
	}
	var m *Message
	if err == nil {
		m, err = decode(io.MultiReader(strings.NewReader(string(first[:])), c))
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m, files, nil
}

func attached(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // none
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "stdio")) // close-on-exec, as ReadMsgUnix asks for
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// decode reads one message; io.EOF means that there is none.
func decode(r io.Reader) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes: more than %d", n, maxMessage)
	}
	// In parts, so that a length alone takes no memory.
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(body) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	m := new(Message)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return m, m.check()
}
