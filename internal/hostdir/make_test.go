package hostdir

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestMakeWritesOnceHoweverManyAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			err := Make(t.Context(), path, func(f *os.File) error {
				calls.Add(1)
				_, err := f.WriteString("whole")
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "whole" {
				t.Errorf("read %q, %v after Make", got, err)
			}
		})
	}
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("written %d times, want once", n)
	}
	wantFiles(t, filepath.Dir(path), "f")
}

func TestMakeFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	boom := errors.New("boom")
	err := Make(t.Context(), filepath.Join(dir, "f"), func(f *os.File) error {
		_, _ = f.WriteString("half")
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
	wantFiles(t, dir)
}

func TestMakeTakesOverFromTheKilled(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"f.part", "other.part"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("left behind, and longer"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := Make(t.Context(), filepath.Join(dir, "f"), func(f *os.File) error {
		_, err := f.WriteString("new")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "f")); string(got) != "new" {
		t.Errorf("got %q", got)
	}
	wantFiles(t, dir, "f")
}

func TestMakeWaitEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	held, err := os.Create(filepath.Join(dir, "f.part"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if err := Lock(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = Make(ctx, filepath.Join(dir, "f"), func(*os.File) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	wantFiles(t, dir, "f.part")
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("files %q, want %q", got, want)
		}
	}
}
