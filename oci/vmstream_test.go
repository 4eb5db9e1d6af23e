package oci

import (
	"io"
	"os"
	"testing"
)

// A read that nobody wants any more ends, and takes nothing from who reads next.
func TestUntilReader(t *testing.T) {
	in, w, err := os.Pipe()
	must(t, err)
	defer func() { _, _ = in.Close(), w.Close() }()
	r, err := newUntilReader(in)
	must(t, err)
	_, err = w.WriteString("first")
	must(t, err)
	b := make([]byte, 10)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "first" {
		t.Errorf("%q, %v", b[:n], err)
	}
	got := make(chan error)
	go func() { _, err := r.Read(make([]byte, 10)); got <- err }()
	r.stop()
	if err := <-got; err != io.EOF {
		t.Errorf("the read under way: %v", err)
	}
	_, err = w.WriteString("second")
	must(t, err)
	if n, err := r.Read(b); err != io.EOF {
		t.Errorf("a read after the end: %q, %v", b[:n], err)
	}
	if n, err := in.Read(b); err != nil || string(b[:n]) != "second" {
		t.Errorf("who reads next: %q, %v", b[:n], err)
	}
}
