package agentproto

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/duplex-run/duplex/internal/workload"
)

const (
	// MaxFromGuest bounds one message of the agent, in bytes.
	MaxFromGuest = 1 << 20
	// MaxFromHost bounds one message of the host: a Spec with its Extra files
	// in base64, and a mebibyte for the rest.
	MaxFromHost = workload.MaxExtra/3*4 + 1<<20
)

// Write sends one message. Concurrent calls on one w must be serialised.
func Write(w io.Writer, m *Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Type, err)
	}
	if len(body) > MaxFromHost {
		return fmt.Errorf("encode %s: %d bytes is more than %d", m.Type, len(body), MaxFromHost)
	}
	frame := make([]byte, 4, 4+len(body))
	binary.LittleEndian.PutUint32(frame, uint32(len(body)))
	if _, err := w.Write(append(frame, body...)); err != nil {
		return fmt.Errorf("send %s: %w", m.Type, err)
	}
	return nil
}

// ReadFromGuest receives and validates one message of the agent. io.EOF means
// that the stream ended between two messages.
func ReadFromGuest(r io.Reader) (*Message, error) {
	m, err := read(r, MaxFromGuest)
	if err != nil {
		return nil, err
	}
	return m, m.fromGuest()
}

// ReadFromHost receives and validates one message of the host.
func ReadFromHost(r io.Reader) (*Message, error) {
	m, err := read(r, MaxFromHost)
	if err != nil {
		return nil, err
	}
	return m, m.fromHost()
}

func read(r io.Reader, limit uint32) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > limit {
		return nil, fmt.Errorf("message of %d bytes: more than %d", n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	m := new(Message)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}
