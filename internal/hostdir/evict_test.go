package hostdir

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestEvictKeepsTheLastUsed(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{
		"new": 0, "yesterday": 24 * time.Hour, "week": 7 * 24 * time.Hour, "month": 30 * 24 * time.Hour, "busy.part": 30 * 24 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	if err := Touch(filepath.Join(dir, "week")); err != nil {
		t.Fatal(err)
	}
	left := func(keep int64) []string {
		if err := Evict(dir, keep); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	if got, want := left(300), []string{"busy.part", "new", "week", "yesterday"}; !slices.Equal(got, want) {
		t.Errorf("300 bytes: left %v, want %v", got, want)
	}
	if got, want := left(0), []string{"busy.part", "new", "week"}; !slices.Equal(got, want) {
		t.Errorf("nothing: left %v, want %v: what is in use stays", got, want)
	}
}

// Only what makes a file evicts others.
func TestMakeBounded(t *testing.T) {
	dir := t.TempDir()
	old, path := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	write := func(f *os.File) error { return f.Truncate(100) }
	past := time.Now().Add(-2 * evictAfter)
	for i, want := range []bool{false, true} { // is old still there?
		if err := os.WriteFile(old, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(old, past, past); err != nil {
			t.Fatal(err)
		}
		if err := MakeBounded(t.Context(), path, 150, write); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(old); (err == nil) != want {
			t.Errorf("call %d: old: %v, want it there: %v", i, err, want)
		}
	}
}
