package cmdline

import (
	"context"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// Variables that the process has set for itself are none of those it began with.
func TestEnviron(t *testing.T) {
	before := os.Environ()
	t.Setenv("DUPLEX_ADDED", "1")
	got := Environ()
	slices.Sort(before)
	slices.Sort(got)
	if !slices.Equal(got, before) {
		t.Errorf("Environ() = %q, want %q", got, before)
	}
}

// Signals cancel until they are taken; the one that did is not lost, and rare ones
// follow.
func TestTake(t *testing.T) {
	var s Signals
	ctx, stop := s.Notify()
	defer stop()
	send := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	ctx2, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	send(syscall.SIGHUP)
	select {
	case <-ctx.Done():
	case <-ctx2.Done():
		t.Fatal("SIGHUP does not cancel")
	}
	taken := s.Take()
	receive := func(want syscall.Signal) {
		select {
		case got := <-taken:
			if got != want {
				t.Errorf("%v came, want %v", got, want)
			}
		case <-ctx2.Done():
			t.Fatalf("%v does not come", want)
		}
	}
	receive(syscall.SIGHUP)
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGQUIT} {
		send(sig)
		receive(sig)
	}
	// Without effect until it is taken.
	for got := syscall.Signal(0); got != syscall.SIGCONT; {
		send(syscall.SIGCONT)
		select {
		case s := <-taken:
			got, _ = s.(syscall.Signal)
		case <-ctx2.Done():
			t.Fatal("SIGCONT does not come")
		default:
		}
	}
}
