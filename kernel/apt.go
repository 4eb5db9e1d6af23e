package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/duplex-run/duplex/internal/lazyregexp"
	"github.com/duplex-run/duplex/internal/workload"
)

// cloudPackage is the distribution's package that always depends on its newest
// kernel for clouds.
const cloudPackage = "linux-image-cloud-amd64"

const (
	remedyNoApt = "fetching needs apt-get and dpkg-deb (Debian, Ubuntu); give a kernel with --kernel FILE instead"
	remedyApt   = "'apt-get update' (as root) shows what is wrong with the package sources; or give a kernel with --kernel FILE"
)

// haveTools says which tool is missing, if one is.
func haveTools() error {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}

// packageRef is a package and the version to get of it.
type packageRef struct {
	Name, Version string
}

func (p packageRef) String() string { return p.Name + "=" + p.Version }

// release is the kernel release that an image package is named after.
func (p packageRef) release() string {
	return strings.TrimPrefix(strings.TrimSuffix(p.Name, "-unsigned"), "linux-image-")
}

// packageLists are the package lists that apt knows packages from: options for
// its commands, none for the machine's own lists.
type packageLists []string

// updatedLists gets the current package lists into dir, from the machine's sources
// and checked against its keys, without touching the machine's lists.
func updatedLists(ctx context.Context, dir string) (packageLists, error) {
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o700); err != nil {
		return nil, err
	}
	lists := packageLists{
		"-o", "Dir::State::Lists=" + dir,
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none",
	}
	args := append([]string{"-q", "-o", "APT::Update::Error-Mode=any"}, lists...)
	if err := runTool(tool(ctx, nil, "apt-get", append(args, "update")...)); err != nil {
		return nil, aptError("update package lists", err)
	}
	return lists, nil
}

// aptError is for what the user can look into with apt.
func aptError(op string, err error) error {
	return &workload.Error{Op: op, Err: err, Remedy: remedyApt}
}

// newest asks apt which kernel package cloudPackage depends on.
func (l packageLists) newest(ctx context.Context) (packageRef, error) {
	var out bytes.Buffer
	args := append([]string{"show", "--no-all-versions"}, l...)
	if err := runTool(tool(ctx, &out, "apt-cache", append(args, cloudPackage)...)); err != nil {
		return packageRef{}, aptError("find package "+cloudPackage, err)
	}
	ref, err := parseDepends(out.String())
	if err != nil {
		return packageRef{}, aptError("find package "+cloudPackage, err)
	}
	return ref, nil
}

// dependency matches "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)"; what it
// captures becomes a file name and arguments of apt-get.
var dependency = lazyregexp.New(`^(linux-image-[0-9][a-z0-9.+-]*) \(= ([0-9][A-Za-z0-9.+~:-]*)\)$`)

// parseDepends finds the kernel package in the Depends field of a package's
// description (deb-control(5)).
func parseDepends(description string) (packageRef, error) {
	for line := range strings.Lines(description) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends:")
		if !ok {
			continue
		}
		for dep := range strings.SplitSeq(value, ",") {
			if m := dependency().FindStringSubmatch(strings.TrimSpace(dep)); m != nil {
				return packageRef{m[1], m[2]}, nil
			}
		}
		return packageRef{}, fmt.Errorf("depends on no kernel package: %s", strings.TrimSpace(value))
	}
	return packageRef{}, errors.New("the package lists do not have it")
}

// download gets the package into dir with apt-get, which verifies its checksum,
// and returns its path. progress is called with 0 to 100.
func (l packageLists) download(ctx context.Context, ref packageRef, dir string, progress func(percent float64)) (string, error) {
	status, statusW, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer func() { _ = status.Close() }()
	// The sandbox user _apt cannot write to a directory of mode 0700.
	args := append([]string{"-q", "-o", "APT::Sandbox::User=root", "-o", "APT::Status-Fd=3"}, l...)
	cmd := tool(ctx, nil, "apt-get", append(args, "download", ref.String())...)
	cmd.Dir = dir
	cmd.ExtraFiles = []*os.File{statusW}
	done := make(chan struct{})
	go func() {
		defer close(done)
		readStatus(status, progress)
	}()
	err = runTool(cmd)
	_ = statusW.Close()
	<-done
	if err != nil {
		return "", aptError("download "+ref.String(), err)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download %s: apt-get left %d packages, want one", ref, len(debs))
	}
	return debs[0], nil
}

// readStatus reads apt's "dlstatus:1:12.5:Retrieving file 1 of 1" lines
// (APT::Status-Fd, apt's README.progress-reporting).
func readStatus(r io.Reader, progress func(percent float64)) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), ":", 4)
		if len(f) < 3 || f[0] != "dlstatus" {
			continue
		}
		if p, err := strconv.ParseFloat(f[2], 64); err == nil {
			progress(p)
		}
	}
	_, _ = io.Copy(io.Discard, r) // never let apt block on a full pipe
}

// tool prepares a command that is killed with its children when ctx ends, and
// when duplex dies in any way.
func tool(ctx context.Context, stdout io.Writer, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout = stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

// runTool runs cmd; its error holds what the command said on stderr.
func runTool(cmd *exec.Cmd) error {
	// Pdeathsig fires when the thread that forked dies, so keep it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	return toolError(cmd, err, stderr.String())
}

func toolError(cmd *exec.Cmd, err error, stderr string) error {
	said := strings.TrimSpace(stderr)
	if i := strings.LastIndexByte(said, '\n'); i >= 0 {
		said = said[i+1:]
	}
	if said != "" {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said)
	}
	return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
}
