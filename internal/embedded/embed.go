package embedded

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/duplex-run/duplex/internal/embedded/builtinid"
)

//go:embed files
var files embed.FS

// ErrMissing reports that this duplex was compiled without one of the programs
// it carries.
var ErrMissing = builtinid.ErrMissing

// Agent returns the ELF executable of the guest agent.
func Agent() ([]byte, error) { return unpack("agent.zst") }

// AgentID identifies the agent that Agent returns, without unpacking it: the
// SHA-256 that the build took of it, in hex.
func AgentID() (string, error) {
	sum, err := read("agent.sum")
	return strings.TrimSpace(string(sum)), err
}

// Probe returns the ELF executable of the isolation probe.
func Probe() ([]byte, error) { return unpack("probe.zst") }

// Monitor opens the ELF executable of a microVM's monitor, which is not compressed,
// because unpacking it would cost every run more than reading, and says what identifies it: its SHA-256, in hex.
func Monitor() (id string, f fs.File, err error) {
	sum, err := read("monitor.sum")
	if err != nil {
		return "", nil, err
	}
	f, err = files.Open("files/monitor")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("monitor: %w", ErrMissing)
	}
	return strings.TrimSpace(string(sum)), f, err
}

// Builtin returns the cpio (newc) archive of the builtin image.
func Builtin() ([]byte, error) { return unpack("builtin.zst") }

func read(name string) ([]byte, error) {
	packed, err := files.ReadFile("files/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return packed, nil
}

func unpack(name string) ([]byte, error) {
	packed, err := read(name)
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	defer dec.Close()
	out, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	return out, nil
}
