package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fuse:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f := &file{}
	fs := flag.NewFlagSet("fuse", flag.ContinueOnError)
	fs.StringVar(&f.env, "env", "", "")
	fs.Func("zero", "", func(name string) error { f.zero = append(f.zero, name); return nil })
	err := fs.Parse(args)
	if err == nil && fs.NArg() < 2 {
		err = errors.New("usage: fuse [-env VARIABLE=VALUE] [-zero SYMBOL]... OUTPUT PROGRAM [INDEX:WORD[,LATER]=PROGRAM...]")
	}
	if err != nil {
		return err
	}
	args = fs.Args()
	first, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	main, err := f.add(first)
	if err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	entries := map[string]uint64{args[1]: main}
	for _, arg := range args[2:] {
		name, path, ok := strings.Cut(arg, "=")
		index, words, ok2 := strings.Cut(name, ":")
		n, err := strconv.Atoi(index)
		if !ok || !ok2 || err != nil || n < 0 {
			return fmt.Errorf("%q is no INDEX:WORD[,LATER]=PROGRAM", arg)
		}
		entry, seen := entries[path]
		if !seen {
			data, err := os.ReadFile(path)
			if err == nil {
				entry, err = f.add(data)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			entries[path] = entry
		}
		word, later, more := strings.Cut(words, ",")
		if more && later == "" {
			return fmt.Errorf("%q is no INDEX:WORD[,LATER]=PROGRAM", arg)
		}
		if err := f.rule(n, word, later, entry); err != nil {
			return err
		}
	}
	out, err := f.finish(main)
	if err != nil {
		return err
	}
	// Not over the file itself, which may be running.
	tmp := args[0] + ".new"
	if err := os.WriteFile(tmp, out, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, args[0])
}

// pad fills up to a page.
func pad(b *bytes.Buffer) {
	b.Write(make([]byte, -b.Len()&(pageSize-1)))
}
