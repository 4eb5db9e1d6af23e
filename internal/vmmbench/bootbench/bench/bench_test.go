package main

import (
	"bufio"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/vmmbench/bootbench"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

// The driver gets what the host tells it.
func TestDriverArguments(t *testing.T) {
	want := driver{
		duplex: "/d", qemu: "/q", bare: "/b", image: "sha256:1", disk: "/i", cases: "a,b", runs: 3,
		distribution: [4]string{"/k", "/ki", "/kg", "k"}, minimal: [4]string{"/m", "/mi", "/mg", "m"},
	}
	var got driver
	if err := got.flags().Parse(vmmbench.Arguments(want.flags())); err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFollow(t *testing.T) {
	bare, image := bootbench.Cases[0], bootbench.Case{What: bootbench.Image, Monitor: bootbench.QEMU, Kernel: bootbench.Minimal}
	for _, tt := range []struct {
		name, console string
		c             bootbench.Case
		steps         int
		fails         string
	}{
		{"bare", "noise\r\n\x06", bare, 1, ""},
		{"image", "\x06\r\nx\r\n", image, 2, ""},
		{"a panic", "Kernel panic - not syncing", bare, 0, "Kernel panic"},
		{"no command", "\x06\r\nguest: no such file", image, 0, "no such file"},
	} {
		ns, err := follow(bufio.NewReader(strings.NewReader(tt.console)), tt.c, 0)
		if len(ns) != tt.steps || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %v, %v", tt.name, ns, err)
		}
	}
}

func TestChoose(t *testing.T) {
	b := &bench{kernels: nil}
	if got := b.choose(""); len(got) != 1 || got[0].Monitor != bootbench.Container {
		t.Errorf("without kernels: %v", got)
	}
}
