// Package refused has the errors that package layer refuses an image with. They are
// apart from it for programs that only look for images that were imported, and say
// what to do about an error.
package refused

import "errors"

// The errors; package layer says what they report.
var (
	ErrEscape = errors.New("leaves the image")
	ErrLimit  = errors.New("over the limit")
	ErrEntry  = errors.New("malformed")
)
