package hostdir

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if id := os.Getenv("HOSTDIR_TEST_RUN"); id != "" {
		r, err := NewRun(id)
		if err != nil {
			os.Exit(1)
		}
		_ = os.WriteFile(r.Path("scratch"), []byte("x"), 0o600)
		_, _ = os.Stdout.WriteString("ready\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestSweepTakesTheDeadAndSparesTheLiving(t *testing.T) {
	root := filepath.Join(t.TempDir(), "run")
	t.Setenv("DUPLEX_RUNTIME", root)
	live, err := NewRun("live")
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), "HOSTDIR_TEST_RUN=dead")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil {
		t.Fatal(err)
	}
	if swept, err := Sweep(); err != nil || len(swept) != 0 {
		t.Errorf("both live: swept %v, %v", swept, err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	// A run that died between making its directory and locking it.
	if err := os.Mkdir(filepath.Join(root, "unlocked"), 0o700); err != nil {
		t.Fatal(err)
	}
	swept, err := Sweep()
	if err != nil || !slices.Equal(swept, []string{"dead", "unlocked"}) {
		t.Errorf("swept %v, %v", swept, err)
	}
	if _, err := os.Stat(live.Path()); err != nil {
		t.Errorf("the living run lost its directory: %v", err)
	}
	if err := errors.Join(live.Close(), live.Close()); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRunIDsAreUniqueAndPlain(t *testing.T) {
	t.Setenv("DUPLEX_RUNTIME", t.TempDir())
	r, err := NewRun("one")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for _, id := range []string{"one", "", "..", "a/b", "a.b"} {
		if _, err := NewRun(id); err == nil {
			t.Errorf("NewRun(%q) succeeded", id)
		}
	}
}
