package cmdline

import (
	"os"
	"strings"
)

// Environ returns the environment that this process was executed with. os.Environ
// returns what internal/embedded/fuse added for Go's runtime, too.
func Environ() []string {
	data, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return os.Environ()
	}
	list := strings.Split(string(data), "\x00")
	return list[:len(list)-1] // each ends with a null
}
