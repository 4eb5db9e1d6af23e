package clones

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// The test binary is also a `duplex run` that starts at once: its processes, pipes
// and memory are real. The image names what it does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		want := []string{"run", "--vm", "--warm", "--interactive", "--memory=64m"}
		if !slices.Equal(os.Args[1:6], want) || os.Args[7] != "cat" {
			_, _ = os.Stderr.WriteString("duplex: run: " + strings.Join(os.Args, " "))
			os.Exit(125)
		}
		switch os.Args[6] {
		case "good":
			if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
				os.Exit(1)
			}
		case "broken":
			_, _ = os.Stderr.WriteString("duplex: no such image")
			os.Exit(125)
		case "ends":
			_, _ = os.Stdout.WriteString(line)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func options(t *testing.T, image string) Options {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Exe: exe, Flags: []string{"--memory=64m"}, Image: image, N: 7, Jobs: 3}
}

func TestRun(t *testing.T) {
	o := options(t, "good")
	var up []int
	o.Progress = func(n int) { up = append(up, n) }
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Clones != 7 || len(r.Memory) != 7 || len(r.UpNs) != 7 || !slices.IsSorted(r.UpNs) || r.UpNs[0] <= 0 || r.StartNs < r.UpNs[6] {
		t.Errorf("result %+v", r)
	}
	if !slices.Equal(up, []int{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("progress %v", up)
	}
	var sum int64
	for _, m := range r.Memory {
		// A Go process: some private memory, most of the program shared with the others.
		if m.Unique < 100<<10 || m.PSS < m.Unique || m.Anonymous <= 0 {
			t.Errorf("memory %+v", m)
		}
		sum += m.Unique
	}
	if r.Total.Unique != sum {
		t.Errorf("together %d, the sum is %d", r.Total.Unique, sum)
	}
}

func TestRunFails(t *testing.T) {
	for image, want := range map[string]string{"broken": "no such image", "ends": "exit status 3"} {
		if _, err := Run(t.Context(), options(t, image)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", image, err, want)
		}
	}
}

func TestParseRollup(t *testing.T) {
	const text = "00400000-7ffe5c5f5000 ---p 00000000 00:00 0    [rollup]\nRss:  900 kB\nPss:  300 kB\nPss_Anon:  1 kB\n" +
		"Private_Clean:  4 kB\nPrivate_Dirty:  100 kB\nAnonymous:  96 kB\nSwap:  8 kB\nSwapPss:  8 kB\nLocked:  0 kB\n"
	m, err := parseRollup([]byte(text))
	if want := (Memory{Unique: 104 << 10, PSS: 300 << 10, Anonymous: 96 << 10, Swap: 8 << 10}); err != nil || m != want {
		t.Errorf("%+v, %v, want %+v", m, err, want)
	}
	if _, err := parseRollup([]byte("Pss: many kB\n")); err == nil {
		t.Error("a number that is none was taken")
	}
}
