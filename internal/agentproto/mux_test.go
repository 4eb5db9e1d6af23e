package agentproto

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// echo is the agent's end of a Mux: each stream gets back what it sends.
func echo(conn io.ReadWriteCloser) *Mux {
	return NewMux(conn, func(s io.ReadWriteCloser) {
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
}

func TestMux(t *testing.T) {
	a, b := net.Pipe() // buffers nothing
	host, agent := NewMux(a, nil), echo(b)
	defer func() { _ = host.Close(); _ = agent.Close() }()
	stalled, err := host.Open() // its reader does not read: the others go on
	if err != nil {
		t.Fatal(err)
	}
	full := make(chan error, 1)
	go func() {
		_, err := stalled.Write(make([]byte, 8*muxWindow))
		full <- err
	}()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			s, err := host.Open()
			if err != nil {
				t.Error(err)
				return
			}
			text := strings.Repeat(string(rune('a'+i)), 3*muxWindow)
			go func() { _, _ = io.WriteString(s, text) }()
			got := make([]byte, len(text))
			if _, err := io.ReadFull(s, got); err != nil || string(got) != text {
				t.Errorf("stream %d: %v", i, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	_ = agent.Close()
	if err := <-full; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the stalled one: %v", err)
	}
	if _, err := stalled.Read(make([]byte, 1)); err != nil && err != io.EOF {
		t.Errorf("the stalled one reads %v", err)
	}
}

// What was sent before a close is read.
func TestMuxCloseKeepsData(t *testing.T) {
	a, b := net.Pipe()
	got := make(chan string, 1)
	host := NewMux(a, nil)
	agent := NewMux(b, func(s io.ReadWriteCloser) {
		text, _ := io.ReadAll(s)
		got <- string(text)
	})
	defer func() { _ = host.Close(); _ = agent.Close() }()
	s, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "all of it"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if text := <-got; text != "all of it" {
		t.Errorf("%q", text)
	}
	if _, err := io.WriteString(s, "x"); err == nil {
		t.Error("wrote to a closed stream")
	}
}

// Whatever the agent's end says, no stream holds more than its window.
func FuzzMux(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x01\x03\x00\x00\x00abc\x01\x00\x00\x00\x03\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x00\x00\x01\xff\xff\xff\xff"))
	f.Add([]byte("\x01\x00\x00\x00\x02\xff\xff\xff\xff\x02\x00\x00\x00\x09"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &Mux{conn: stream{bytes.NewReader(data)}, streams: map[uint32]*muxStream{}}
		s, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		m.run()
		got, _ := io.ReadAll(s)
		if len(got) > muxWindow {
			t.Errorf("%d bytes", len(got))
		}
	})
}
