package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the tests run: on the host TestMain makes the image; in the lab the
// flags say what the host made.
var (
	binFlag   = flag.String("duplex", "", "path of the duplex binary; default bin/duplex")
	imageFlag = flag.String("image", "", "helper image, imported by the host")
)

var (
	bin       string // duplex
	image     string // reference of the helper image
	helperDir string // scratch directory of the host's test process
)

// inLab says whether these tests run in the lab machine.
func inLab() bool { return os.Getenv("DUPLEX_IN_LAB") != "" }

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("end-to-end tests need bin/duplex and minutes: make test runs them")
		os.Exit(0)
	}
	os.Exit(setup(m))
}

func setup(m *testing.M) int {
	bin = *binFlag
	if bin == "" {
		bin, _ = filepath.Abs("../../bin/duplex")
	}
	if _, err := os.Stat(bin); err != nil {
		fmt.Fprintf(os.Stderr, "%v: run make build first\n", err)
		return 1
	}
	image = *imageFlag
	if image == "" {
		if err := ownCache(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "duplex-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		helperDir = dir
		rootfs := filepath.Join(dir, "rootfs")
		if err := makeRootfs(rootfs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		image = "rootfs:" + rootfs
	}
	// Other tests run beside these: see footprint.
	tmp, err := os.MkdirTemp("", "e2e-")
	if err == nil {
		defer func() { _ = os.RemoveAll(tmp) }()
		err = errors.Join(os.Setenv("TMPDIR", tmp), os.Setenv("DUPLEX_RUNTIME", filepath.Join(tmp, "run")))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	back, err := moveToOwnGroups()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer back()
	return m.Run()
}

// ownCache keeps the tests' images out of the user's cache, and takes away those
// of tests before, whose directories are gone; kernels stay.
func ownCache() error {
	if os.Getenv("DUPLEX_CACHE") == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		if err := os.Setenv("DUPLEX_CACHE", filepath.Join(base, "duplex-test", "e2e")); err != nil {
			return err
		}
	}
	if out, err := exec.Command(bin, "image", "prune").CombinedOutput(); err != nil {
		return fmt.Errorf("image prune: %w\n%s", err, out)
	}
	return nil
}

// makeRootfs puts the helper and what the tests need around it into dir.
func makeRootfs(dir string) error {
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "helper"), "./helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the helper: %w\n%s", err, out)
	}
	files := map[string]struct {
		mode os.FileMode
		text string
	}{
		"etc/passwd": {0o644, "root:x:0:0:root:/root:/helper\napp:x:1000:1000::/home/app:/helper\n"},
		"etc/group":  {0o644, "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"},
		"noexec":     {0o644, "not a program\n"},
		"garbage":    {0o755, "\x00\x01\x02 no format the kernel knows\n"},
	}
	for _, d := range []string{"etc", "tmp", "root", "home/app"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, f := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky)
}

// result is how one duplex command ended.
type result struct {
	status         int
	stdout, stderr string
}

// limit bounds every command: a hang is a failure with a name. It is for the
// emulated machine on a busy host, where hashing an image takes minutes.
const limit = 8 * time.Minute

// labFailed is what duplex says when the emulated machine itself failed. QEMU's
// emulation of SVM is not free of faults (see docs/lab.md), and what is tested
// here is what runs on it: such a run is made once more, and said so.
const labFailed = "duplex: run the lab: "

// duplex runs the binary to its end.
func duplex(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	var input []byte
	if stdin != nil {
		var err error
		if input, err = io.ReadAll(stdin); err != nil {
			t.Fatal(err)
		}
	}
	r := duplexOnce(t, input, args)
	if strings.Contains(r.stderr, labFailed) {
		fmt.Printf("once more, the lab machine failed: %s", r.stderr)
		r = duplexOnce(t, input, args)
	}
	return r
}

func duplexOnce(t *testing.T, stdin []byte, args []string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("duplex %s: did not end within %v\n%s", strings.Join(args, " "), limit, &stderr)
	}
	return result{status(t, err), stdout.String(), stderr.String()}
}

func status(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	t.Fatalf("duplex: %v", err)
	return 0
}

// isolations are those that this machine runs natively.
func isolations() []string {
	if inLab() {
		return []string{"container", "vm"}
	}
	return []string{"container"}
}

// each runs f for every isolation that this machine has.
func each(t *testing.T, f func(t *testing.T, flags []string)) {
	for _, iso := range isolations() {
		t.Run(iso, func(t *testing.T) { f(t, []string{"run", "--" + iso, "--lab=never"}) })
	}
}

func concat(lists ...[]string) []string {
	var out []string
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}
