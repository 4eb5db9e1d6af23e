// Command env runs a command in a changed environment, or prints the environment:
// env [-i] [-u NAME]... [NAME=VALUE]... [COMMAND [ARG]...].
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const (
	statusError         = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		name, value, isAssignment := strings.Cut(args[0], "=")
		switch {
		case args[0] == "-i":
			os.Clearenv()
		case args[0] == "-u" && len(args) > 1:
			args = args[1:]
			check(os.Unsetenv(args[0]))
		case strings.HasPrefix(args[0], "-"):
			check(fmt.Errorf("unknown option %s", args[0]))
		case isAssignment:
			check(os.Setenv(name, value))
		default:
			execute(args)
		}
		args = args[1:]
	}
	for _, e := range os.Environ() {
		fmt.Println(e)
	}
}

func check(err error) {
	if err != nil {
		fail(statusError, err)
	}
}

func fail(status int, err error) {
	_, _ = fmt.Fprintln(os.Stderr, "env:", err)
	os.Exit(status)
}

// execute does not return.
func execute(argv []string) {
	path, err := exec.LookPath(argv[0])
	if err == nil {
		err = syscall.Exec(path, argv, os.Environ())
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		fail(statusNotFound, fmt.Errorf("%s: not found", argv[0]))
	}
	fail(statusNotExecutable, fmt.Errorf("%s: %w", argv[0], err))
}
