package handshake

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/workload"
)

func pair(t *testing.T) (Conn, Conn) {
	t.Helper()
	a, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b := Conn{f}
	t.Cleanup(func() { _ = a.F.Close(); _ = b.F.Close() })
	return a, b
}

func TestMessagesArrive(t *testing.T) {
	a, b := pair(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(
			b.Send(Message{Kind: KindReady, Stamps: []Stamp{{Phase: workload.PhaseLoaded, Ns: 7}}}),
			b.SendFile(Message{Kind: KindTerminal}, int(file.Fd())),
			b.Send(Message{Kind: KindExecute, Execute: &Execute{Seccomp: bytes.Repeat([]byte{1}, 1<<20)}}),
			b.F.Close())
	}()
	m, err := a.Expect(KindReady)
	if err != nil || len(m.Stamps) != 1 || m.Stamps[0].Ns != 7 || m.File != nil {
		t.Errorf("%+v %v", m, err)
	}
	m, err = a.Expect(KindTerminal)
	if err != nil || m.File == nil {
		t.Fatalf("%+v %v", m, err)
	}
	var want, got unix.Stat_t
	if err := errors.Join(unix.Fstat(int(file.Fd()), &want), unix.Fstat(int(m.File.Fd()), &got), m.File.Close()); err != nil || want.Ino != got.Ino {
		t.Errorf("another file arrived: %v", err)
	}
	m, err = a.Expect(KindExecute)
	if err != nil || len(m.Execute.Seccomp) != 1<<20 {
		t.Errorf("%d bytes, %v", len(m.Execute.Seccomp), err)
	}
	if _, err := a.Receive(); err != io.EOF {
		t.Errorf("%v at the end, want EOF", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A failure arrives with its step, its text and its errno, wherever it was
// wrapped; and in place of any message.
func TestFailureArrives(t *testing.T) {
	a, b := pair(t)
	cause := &StepError{Step: "mount /proc", Err: &os.PathError{Op: "open", Path: "/proc", Err: unix.EPERM}}
	if err := b.Send(Failed(cause)); err != nil {
		t.Fatal(err)
	}
	_, err := a.Expect(KindReady)
	var se *StepError
	if !errors.As(err, &se) || se.Step != "mount /proc" || !errors.Is(err, unix.EPERM) || err.Error() != cause.Error() {
		t.Errorf("%v, want %v", err, cause)
	}
	if m := Failed(io.ErrUnexpectedEOF); m.Step == "" || m.Errno != 0 || errors.Is(m.Failure(), unix.Errno(0)) {
		t.Errorf("%+v", m)
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, raw := range map[string][]byte{
		"truncated length": {1, 0},
		"truncated body":   {10, 0, 0, 0, '{'},
		"too long":         binary.LittleEndian.AppendUint32(nil, maxMessage+1),
		"4 GiB":            {0xff, 0xff, 0xff, 0xff},
		"no JSON":          {2, 0, 0, 0, 'x', 'y'},
		"empty":            {0, 0, 0, 0},
		"another kind":     []byte("\x0d\x00\x00\x00{\"kind\":\"go\"}"),
	} {
		a, b := pair(t)
		if _, err := b.F.Write(raw); err != nil {
			t.Fatal(err)
		}
		_ = b.F.Close()
		if m, err := a.Expect(KindReady); err == nil {
			t.Errorf("%s: %+v, want an error", name, m)
		}
	}
	a, _ := pair(t)
	err := a.Send(Message{Kind: KindFailed, Error: strings.Repeat("x", maxMessage)})
	if !errors.Is(err, unix.E2BIG) {
		t.Errorf("%v, want E2BIG", err)
	}
}

// Whatever a container's init sends, it is a message or an error, of bounded size.
func FuzzReceive(f *testing.F) {
	for _, m := range []Message{{Kind: KindReady, Stamps: []Stamp{{Phase: workload.PhaseLoaded, Ns: 7}}}, {Kind: KindExecute, Execute: &Execute{Seccomp: []byte{1}}}} {
		data, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)-1])
	}
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		data = data[:min(len(data), 32<<10)] // what the socket takes without a reader
		a, file, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.F.Close() }()
		_, werr := file.Write(data)
		if err := errors.Join(werr, file.Close()); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := a.Receive()
			if err != nil {
				return
			}
			if m.File != nil {
				t.Fatal("a file out of bytes")
			}
		}
	})
}
