package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/duplex-run/duplex/vmm/state"
)

// The state file: magic, version, and two parts with their lengths (le32): Meta as
// JSON, and the machine; then the SHA-256 of all that.
const (
	magic    = "DUPLEXSNAPSHOT"
	version  = 1
	maxMeta  = 64 << 10
	maxState = len(magic) + 3*4 + maxMeta + state.MaxSize + sha256.Size
)

// Meta is what the state file says beside the machine.
type Meta struct {
	Key    Key       `json:"key"`
	Made   time.Time `json:"made"`
	Memory Memory    `json:"memory"`
}

// Memory is what the memory file was when it was complete.
type Memory struct {
	Size   uint64 `json:"size"`   // bytes, the guest's memory
	Data   uint64 `json:"data"`   // bytes of pages that are not all zeros
	SHA256 string `json:"sha256"` // of those pages, each after its number (le64)
	Inode  uint64 `json:"inode"`
	MTime  int64  `json:"mtime"` // nanoseconds
	CTime  int64  `json:"ctime"`
}

// ErrDamaged is wrapped by the errors about files that are not what Create wrote.
var ErrDamaged = errors.New("the snapshot is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, args...))
}

// encode makes a state file.
func encode(m *Meta, machine []byte) ([]byte, error) {
	meta, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(meta) > maxMeta || len(machine) > state.MaxSize {
		return nil, fmt.Errorf("a state of %d and %d bytes", len(meta), len(machine))
	}
	p := binary.LittleEndian.AppendUint32([]byte(magic), version)
	for _, part := range [][]byte{meta, machine} {
		p = append(binary.LittleEndian.AppendUint32(p, uint32(len(part))), part...)
	}
	sum := sha256.Sum256(p)
	return append(p, sum[:]...), nil
}

// parse reads a state file. The machine is a part of p, and not decoded.
func parse(p []byte) (*Meta, []byte, error) {
	body, ok := bytes.CutPrefix(p, []byte(magic))
	if !ok || len(body) < 4 {
		return nil, nil, damaged("the state is no state")
	}
	if v := binary.LittleEndian.Uint32(body); v != version {
		return nil, nil, fmt.Errorf("%w: its files have version %d, this duplex has %d", ErrStale, v, version)
	}
	if len(p) < sha256.Size {
		return nil, nil, damaged("the state ends early")
	}
	end := len(p) - sha256.Size
	if sum := sha256.Sum256(p[:end]); !bytes.Equal(sum[:], p[end:]) {
		return nil, nil, damaged("the state's checksum is wrong")
	}
	body = p[len(magic)+4 : max(end, len(magic)+4)]
	meta, body, err := cut(body, maxMeta)
	if err != nil {
		return nil, nil, err
	}
	machine, rest, err := cut(body, state.MaxSize)
	if err != nil {
		return nil, nil, err
	}
	if len(rest) > 0 {
		return nil, nil, damaged("%d bytes behind the state", len(rest))
	}
	m := &Meta{}
	if err := json.Unmarshal(meta, m); err != nil {
		return nil, nil, damaged("the state's description: %w", err)
	}
	return m, machine, nil
}

// cut takes a part of at most limit bytes off p.
func cut(p []byte, limit int) (part, rest []byte, err error) {
	if len(p) < 4 {
		return nil, nil, damaged("the state ends early")
	}
	n := uint64(binary.LittleEndian.Uint32(p))
	if p = p[4:]; n > uint64(limit) || n > uint64(len(p)) {
		return nil, nil, damaged("a part of %d bytes in %d", n, len(p))
	}
	return p[:n], p[n:], nil
}
