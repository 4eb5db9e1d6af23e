// Package lazyregexp compiles regular expressions when they are first used: at
// the start of the process they would cost every run half a millisecond, and
// most runs use none.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that returns expr compiled. The function panics for an
// expression that is not valid, as regexp.MustCompile does.
func New(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
