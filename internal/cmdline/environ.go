package cmdline

import (
	"os"
	"strings"
)

// added is the variable that scripts/build has internal/embedded/fuse add.
const added = "GOMAXPROCS"

// LookupEnv returns a variable of Environ.
func LookupEnv(name string) (string, bool) {
	if name != added {
		return os.LookupEnv(name)
	}
	for _, v := range Environ() {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

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
