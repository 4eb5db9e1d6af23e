// Command sh is a POSIX shell: sh [-eux] [-c COMMAND [NAME [ARG]...] | FILE [ARG]...].
// It is mvdan.cc/sh's interpreter with a command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const statusUsage = 2

func main() { os.Exit(status(run(os.Args))) }

// status maps how the script ended to an exit status.
func status(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := interp.IsExitStatus(err); ok {
		return int(code)
	}
	_, _ = fmt.Fprintln(os.Stderr, "sh:", err)
	var notFound *os.PathError
	if errors.As(err, &notFound) {
		return 127
	}
	return statusUsage
}

// invocation is a parsed command line.
type invocation struct {
	options []string // -e, -u, -x as the interpreter takes them
	command *string  // -c
	name    string   // $0
	file    string   // script, or ""
	args    []string // $1 and on
}

func parse(argv []string) (invocation, error) {
	inv := invocation{name: argv[0]}
	rest := argv[1:]
	wantCommand := false
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			break
		}
		for _, c := range arg[1:] {
			switch c {
			case 'c':
				wantCommand = true
			case 'e', 'u', 'x':
				inv.options = append(inv.options, "-"+string(c))
			case 'i', 'l', 's': // nothing to do
			default:
				return inv, fmt.Errorf("unknown option -%c", c)
			}
		}
	}
	switch {
	case wantCommand && len(rest) == 0:
		return inv, errors.New("-c needs a command")
	case wantCommand:
		inv.command = &rest[0]
		if rest = rest[1:]; len(rest) > 0 {
			inv.name, inv.args = rest[0], rest[1:]
		}
	case len(rest) > 0:
		inv.file, inv.name, inv.args = rest[0], rest[0], rest[1:]
	}
	return inv, nil
}

func run(argv []string) error {
	inv, err := parse(argv)
	if err != nil {
		return err
	}
	params := append(append(inv.options, "--"), inv.args...)
	runner, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.Params(params...))
	if err != nil {
		return err
	}
	switch {
	case inv.command != nil:
		return script(runner, strings.NewReader(*inv.command), inv.name)
	case inv.file != "":
		f, err := os.Open(inv.file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return script(runner, f, inv.name)
	case term.IsTerminal(int(os.Stdin.Fd())):
		return interactive(runner)
	}
	return script(runner, os.Stdin, inv.name)
}

func script(runner *interp.Runner, r io.Reader, name string) error {
	prog, err := syntax.NewParser().Parse(r, name)
	if err != nil {
		return err
	}
	return runner.Run(context.Background(), prog)
}

// interactive reads commands from a terminal until its end or `exit`.
func interactive(runner *interp.Runner) error {
	prompt := "$ "
	if os.Getuid() == 0 {
		prompt = "# "
	}
	parser := syntax.NewParser()
	fmt.Print(prompt)
	var last error
	err := parser.Interactive(os.Stdin, func(stmts []*syntax.Stmt) bool {
		if parser.Incomplete() {
			fmt.Print("> ")
			return true
		}
		for _, stmt := range stmts {
			last = runner.Run(context.Background(), stmt)
			if runner.Exited() {
				return false
			}
		}
		fmt.Print(prompt)
		return true
	})
	if err != nil {
		return err
	}
	return last
}
