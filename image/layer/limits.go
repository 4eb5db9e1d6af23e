package layer

import (
	"fmt"

	"github.com/duplex-run/duplex/image/refused"
)

// Limits bound what an image may cost the host.
type Limits struct {
	// Entries is the most tar entries in all layers together.
	Entries int
	// FileSize is the most bytes of one file, TotalSize of all files of all
	// layers, also those that a later layer removes.
	FileSize, TotalSize int64
	// Metadata is the most bytes of names, link targets and xattrs, all of
	// which are held in memory.
	Metadata int64
}

// DefaultLimits admit every image anyone has reason to run, some of which have
// half a million files, and cap the memory of an import at about 1 GB.
var DefaultLimits = Limits{
	Entries:   1 << 20,
	FileSize:  32 << 30,
	TotalSize: 64 << 30,
	Metadata:  256 << 20,
}

// Linux's limits on paths, and on links followed in one.
const (
	maxPath  = 4096
	maxName  = 255
	maxDepth = maxPath / 2
	maxLinks = 40
)

// Errors that an import is refused with.
var (
	// ErrEscape reports a path or link that leaves the image.
	ErrEscape = refused.ErrEscape
	// ErrLimit reports something absurdly big.
	ErrLimit = refused.ErrLimit
	// ErrEntry reports an entry that makes no sense.
	ErrEntry = refused.ErrEntry
)

func overLimit(what string, got, limit int64) error {
	return fmt.Errorf("%s: %s, at most %s: %w", what, size(got), size(limit), ErrLimit)
}

// size formats bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n)/unit, 0
	for value >= unit {
		value /= unit
		suffix++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[suffix])
}
