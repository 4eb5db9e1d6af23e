package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/tinyelf"
)

// exits writes a program that ends with that status.
func exits(t *testing.T, dir, name string, base uint64, status byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, tinyelf.Program(base, tinyelf.Exit(status)), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// The arguments say which of the programs runs.
func TestChoice(t *testing.T) {
	dir := t.TempDir()
	first := exits(t, dir, "first", 0x400000, 1)
	oci := exits(t, dir, "oci", 0x20000000, 2)
	child := exits(t, dir, "child", 0x10000000, 3)
	small := exits(t, dir, "small", 0x30000000, 4)
	out := filepath.Join(dir, "out")
	if err := run([]string{out, first, "0:whole=" + first, "0:child=" + child, "1:oci=" + oci, "1:run,--small=" + small, "0:kid=" + child}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		argv []string
		want int
	}{
		{[]string{"duplex"}, 1},
		{[]string{"duplex", "version"}, 1},
		{[]string{"duplex", "oci"}, 2},
		{[]string{"duplex", "oci", "run"}, 2},
		{[]string{"duplex", "oc"}, 1},
		{[]string{"duplex", "ocis"}, 1},
		{[]string{"duplex", ""}, 1},
		{[]string{"duplex", "x", "oci"}, 1},
		{[]string{"child"}, 3},
		{[]string{"kid", "5"}, 3},
		{[]string{"whole", "oci"}, 1}, // the first rule that holds
		{[]string{"child", "oci"}, 3},
		{[]string{"duplex", "run"}, 1},
		{[]string{"duplex", "run", "--small"}, 4},
		{[]string{"duplex", "run", "-t", "", "--small", "x"}, 4},
		{[]string{"duplex", "run", "--smaller", "--smal", "x"}, 1},
		{[]string{"duplex", "--small", "run"}, 1},
		{[]string{"--small", "run"}, 1},
		{[]string{"duplex", "oci", "run", "--small"}, 2},
		{[]string{"whole", "run", "--small"}, 1},
	} {
		cmd := &exec.Cmd{Path: out, Args: test.argv}
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != test.want {
			t.Errorf("%q: %v, want exit status %d", test.argv, err, test.want)
		}
	}
	// To other tools it is the first program.
	want, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[64:len(want)], want[64:]) {
		t.Error("the first program is not there as it was")
	}
	if _, err := elf.NewFile(bytes.NewReader(got)); err != nil {
		t.Error(err)
	}
}

// All programs but the first get one more variable, in front of what they have.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	// The status is the sum of the first letters of the last argument and of the
	// first two variables.
	sum := []byte{
		0x48, 0x8b, 0x04, 0x24, // mov rax, [rsp]
		0x48, 0x8b, 0x0c, 0xc4, // mov rcx, [rsp+rax*8]
		0x0f, 0xb6, 0x39, // movzx edi, byte [rcx]
		0x48, 0x8b, 0x4c, 0xc4, 0x10, // mov rcx, [rsp+rax*8+16]
		0x40, 0x02, 0x39, // add dil, [rcx]
		0x48, 0x8b, 0x4c, 0xc4, 0x18, // mov rcx, [rsp+rax*8+24]
		0x40, 0x02, 0x39, // add dil, [rcx]
		0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05, // mov eax, exit; syscall
	}
	write := func(name string, base uint64) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, tinyelf.Program(base, sum), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first, second := write("first", 0x400000), write("second", 0x20000000)
	out := filepath.Join(dir, "out")
	if err := run([]string{"-env", "\x03=x", out, first, "0:whole=" + first, "1:oci=" + second, "0:kid=" + second}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		argv []string
		want int
	}{
		{[]string{"d", "x", "\x10"}, 0x10 + 0x20 + 0x40},
		{[]string{"whole", "oci", "\x10"}, 0x10 + 0x20 + 0x40},
		{[]string{"d", "oci", "\x10"}, 0x10 + 0x03 + 0x20},
		{[]string{"d", "oci", "x", "y", "\x10"}, 0x10 + 0x03 + 0x20},
		{[]string{"kid", "\x11"}, 0x11 + 0x03 + 0x20},
	} {
		cmd := &exec.Cmd{Path: out, Args: test.argv, Env: []string{"\x20=a", "\x40=b"}}
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != test.want {
			t.Errorf("%q: %v, want exit status %d", test.argv, err, test.want)
		}
	}
}

// A variable of another program than the first is 0 from the start.
func TestZero(t *testing.T) {
	dir := t.TempDir()
	source := "package main\n\nimport \"os\"\n\nvar value = 7\n\nfunc main() { os.Exit(value) }\n"
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-ldflags", "-w -T 0x20001000", "-o", program, filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	first := exits(t, dir, "first", 0x400000, 1)
	out := filepath.Join(dir, "out")
	for _, test := range []struct {
		args []string
		want int
	}{
		{nil, 7},
		{[]string{"-zero", "main.value"}, 0},
	} {
		if err := run(append(test.args, out, first, "1:oci="+program)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(out, "oci")
		if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != test.want {
			t.Errorf("%q: %v, want exit status %d", test.args, err, test.want)
		}
	}
	err := run([]string{"-zero", "main.none", out, first, "1:oci=" + program})
	if err == nil || !strings.Contains(err.Error(), "no variable main.none") {
		t.Errorf("a variable that is not there: %v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	first := exits(t, dir, "first", 0x400000, 1)
	same := exits(t, dir, "same", 0x400000, 1)
	high := exits(t, dir, "high", chooserAddress, 1)
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ arg, want string }{
		{"1:oci=" + same, "another program's"},
		{"1:oci=" + high, "its addresses reach"},
		{"1:oci=" + text, "EOF"},
		{"1:oci=" + filepath.Join(dir, "none"), "no such file"},
		{"1:oci=/bin/sh", "not a static program"},
		{"oci=" + first, "is no INDEX:WORD[,LATER]=PROGRAM"},
		{"-1:oci=" + first, "is no INDEX:WORD[,LATER]=PROGRAM"},
		{"1:oci", "is no INDEX:WORD[,LATER]=PROGRAM"},
		{"1:=" + first, "1 to 31 bytes"},
		{"1:run,=" + first, "is no INDEX:WORD[,LATER]=PROGRAM"},
		{"1:run," + strings.Repeat("a", 32) + "=" + first, "1 to 31 bytes"},
		{"1:" + strings.Repeat("a", 32) + "=" + first, "1 to 31 bytes"},
	} {
		err := run([]string{filepath.Join(dir, "out"), first, test.arg})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.arg, err, test.want)
		}
	}
}
