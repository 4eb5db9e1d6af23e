package agentproto

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/workload"
)

func frame(body string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestRoundTrip(t *testing.T) {
	guest := []*Message{
		{Type: Hello, Version: Version},
		{Type: Hello, Version: Version, Restored: true},
		{Type: Started, PID: 42},
		{Type: Failed, Step: "mount", Error: "no such device"},
		{Type: Exited, Exit: &Exit{Exit: workload.Exit{Code: 255, Message: "x"}, StdoutBytes: 1 << 40}},
		{Type: Returned, Bytes: 7},
		{Type: Log, Text: "6,0,12,-;Linux version\n \u00e9<&>\n"},
	}
	host := []*Message{
		{Type: Run, Start: &Start{Spec: workload.Spec{Argv: []string{"true"}}, Lab: &Lab{Return: []string{"/x"}}}},
		{Type: Run, Start: &Start{Spec: workload.Spec{Argv: []string{"true"}}, Network: &Network{
			MAC: "02:00:00:00:00:01", MTU: 1500, Search: []string{"example.org"},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.2.15/24"), netip.MustParsePrefix("fd00::15/64")},
			Gateways:  []netip.Addr{netip.MustParseAddr("10.0.2.2"), netip.MustParseAddr("fd00::2")},
			DNS:       []netip.Addr{netip.MustParseAddr("10.0.2.3")}}}},
		{Type: Run, Start: &Start{Spec: workload.Spec{Argv: []string{"true"}}, Clone: NewClone()}},
		{Type: Signal, Signal: 64},
		{Type: Resize, Size: &workload.WinSize{Rows: 1, Cols: 65535}},
		{Type: StdinEOF},
		{Type: Closed, Stream: "stderr"},
	}
	for _, side := range []struct {
		list []*Message
		read func(io.Reader) (*Message, error)
	}{{guest, ReadFromGuest}, {host, ReadFromHost}} {
		var b bytes.Buffer
		for _, m := range side.list {
			if err := Write(&b, m); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range side.list {
			got, err := side.read(&b)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v (%v), want %+v", got, err, want)
			}
		}
		if _, err := side.read(&b); err != io.EOF {
			t.Errorf("after the last message: %v, want EOF", err)
		}
	}
}

func TestNetworkRefused(t *testing.T) {
	for name, body := range map[string]string{
		"no address":      `{}`,
		"no prefix":       `{"addresses":["10.0.2.15"]}`,
		"two gateways":    `{"addresses":["10.0.2.15/24"],"gateways":["10.0.2.2","10.0.2.3"]}`,
		"empty gateway":   `{"addresses":["10.0.2.15/24"],"gateways":[""]}`,
		"mapped address":  `{"addresses":["::ffff:10.0.2.15/120"]}`,
		"MTU of 64 KiB":   `{"addresses":["10.0.2.15/24"],"mtu":65536}`,
		"negative MTU":    `{"addresses":["10.0.2.15/24"],"mtu":-1}`,
		"server is text":  `{"addresses":["10.0.2.15/24"],"dns":["resolver"]}`,
		"server is empty": `{"addresses":["10.0.2.15/24"],"dns":[""]}`,
	} {
		in := frame(`{"type":"start","start":{"spec":{"argv":["x"]},"network":` + body + `}}`)
		if _, err := ReadFromHost(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCloneRefused(t *testing.T) {
	entropy, id := base64.StdEncoding.EncodeToString(make([]byte, MinEntropy)), strings.Repeat("0a", 16)
	for name, body := range map[string]string{
		"nothing":        `{}`,
		"little entropy": `{"entropy":"AAAA","machine_id":"` + id + `"}`,
		"no machine id":  `{"entropy":"` + entropy + `"}`,
		"long id":        `{"entropy":"` + entropy + `","machine_id":"` + id + `00"}`,
		"upper case":     `{"entropy":"` + entropy + `","machine_id":"` + strings.ToUpper(id) + `"}`,
		"a path":         `{"entropy":"` + entropy + `","machine_id":"` + strings.Repeat("../", 10) + `xx"}`,
	} {
		in := frame(`{"type":"start","start":{"spec":{"argv":["x"]},"clone":` + body + `}}`)
		if _, err := ReadFromHost(bytes.NewReader(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewClone(t *testing.T) {
	a, b := NewClone(), NewClone()
	if !a.valid() || !b.valid() || bytes.Equal(a.Entropy, b.Entropy) || a.MachineID == b.MachineID {
		t.Errorf("clones %+v, %+v", a, b)
	}
}

func TestReadRefuses(t *testing.T) {
	long := binary.LittleEndian.AppendUint32(nil, MaxFromGuest+1)
	for name, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"cut length":       {[]byte{1, 0}, "unexpected EOF"},
		"cut body":         {frame("{}")[:5], "unexpected EOF"},
		"no body":          {[]byte{2, 0, 0, 0}, "unexpected EOF"},
		"too long":         {long, "more than"},
		"no JSON":          {frame("hello"), "decode"},
		"wrong kind":       {frame(`{"type":7}`), "decode"},
		"two values":       {frame(`{"type":"hello","version":1}{}`), "decode"},
		"empty":            {frame(""), "decode"},
		"unknown":          {frame(`{"type":"boo"}`), "unexpected message"},
		"the host's":       {frame(`{"type":"signal","signal":9}`), "unexpected message"},
		"hello, no number": {frame(`{"type":"hello"}`), "missing"},
		"exit, no exit":    {frame(`{"type":"exit"}`), "missing"},
		"exit 256":         {frame(`{"type":"exit","exit":{"code":256}}`), "out of range"},
		"exit -1":          {frame(`{"type":"exit","exit":{"code":-1}}`), "out of range"},
		"signal 65":        {frame(`{"type":"exit","exit":{"signal":65}}`), "out of range"},
		"negative bytes":   {frame(`{"type":"exit","exit":{"stdout_bytes":-1}}`), "decode"},
		"started, no pid":  {frame(`{"type":"started"}`), "missing"},
		"log, no text":     {frame(`{"type":"log"}`), "missing"},
		"failed, no step":  {frame(`{"type":"failed","error":"x"}`), "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ReadFromGuest(bytes.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want an error with %q", m, err, tt.want)
			}
		})
	}
	if _, err := ReadFromHost(bytes.NewReader(frame(`{"type":"closed","stream":"control"}`))); !errors.Is(err, errIncomplete) {
		t.Errorf("closed control: %v, want %v", err, errIncomplete)
	}
}

func TestWriteRefusesTooLong(t *testing.T) {
	m := &Message{Type: Run, Start: &Start{Spec: workload.Spec{Argv: []string{strings.Repeat("x", MaxFromHost)}}}}
	var b bytes.Buffer
	if err := Write(&b, m); err == nil || b.Len() != 0 {
		t.Errorf("wrote %d bytes, error %v", b.Len(), err)
	}
}

// Whatever the guest sends is refused, or means the same when it is sent again.
func FuzzReadFromGuest(f *testing.F) {
	f.Add(frame(`{"type":"hello","version":1}`))
	f.Add(frame(`{"type":"exit","exit":{"code":3,"stdout_bytes":9}}`))
	f.Add(frame(`{"type":"failed","step":"a","error":"b"}`))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ReadFromGuest(bytes.NewReader(in))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Write(&b, m); err != nil {
			t.Fatal(err)
		}
		again, err := ReadFromGuest(&b)
		if err != nil || again.Type != m.Type {
			t.Errorf("%q came back as %+v, %v", in, again, err)
		}
	})
}
