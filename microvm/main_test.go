package microvm

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/lab"
	hostbridge "github.com/duplex-run/duplex/network/bridge"
	"github.com/duplex-run/duplex/network/user"
)

// What the TestGuest tests boot. TestMachine makes it on the host and runs them
// in the lab.
var (
	kernelFlag = flag.String("kernel", "", "guest kernel")
	initrdFlag = flag.String("initrd", "", "initramfs")
	bareFlag   = flag.String("bare", "", "initramfs with testdata/bare")
	rootfsFlag = flag.String("rootfs", "", "EROFS image with the helper")
	guestFlag  = flag.String("guest", "^TestGuest", "which tests TestMachine runs")
	limitFlag  = flag.String("guest-timeout", "20m", "time limit of those tests")
)

func TestMain(m *testing.M) {
	underAttack = attack
	UserNetworks.New = func() (UserNetwork, error) { return user.New(user.Config{}) }
	BridgeNetwork = func() (BridgePort, *os.File, error) {
		p, f, err := hostbridge.JoinTAP()
		return p, f, err
	}
	UserNetworks.Plan = func() (agentproto.Network, error) { return user.GuestPlan(user.Config{}) }
	Init()
	if os.Args[0] == parentName {
		parentMain()
	}
	os.Exit(m.Run())
}

// guestOnly skips a test that TestMachine runs elsewhere.
func guestOnly(t *testing.T) Runner {
	t.Helper()
	if *kernelFlag == "" {
		t.Skip("TestMachine runs it in the lab")
	}
	return Runner{Kernel: *kernelFlag, Initrd: *initrdFlag}
}

// TestMachine runs the tests named TestGuest in the lab, whose KVM works.
func TestMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines for minutes")
	}
	if *kernelFlag != "" {
		t.Skip("this is that machine")
	}
	args := guestArgs(t)
	t.Log(args)
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	o := lab.Options{Argv: args, Cwd: t.TempDir(), Carry: []string{*kernelFlag, *initrdFlag, *bareFlag, *rootfsFlag}}
	exit, err := lab.Run(ctx, o, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, nil)
	if err != nil { // the machine's own failure: see docs/lab.md
		t.Logf("the lab: %v, %v: once more", exit, err)
		exit, err = lab.Run(ctx, o, workload.Stdio{Out: os.Stdout, Err: os.Stderr}, nil)
	}
	if err != nil || exit.Status() != 0 {
		t.Errorf("%v, %v", exit, err)
	}
}

// testKernelEnv names the kernel of the guests, as --kernel does; the lab's stays.
const testKernelEnv = "DUPLEX_TEST_KERNEL"

// guestArgs makes kernel, initramfs and image, sets the flags to them, and
// returns the command that runs the TestGuest tests with them.
func guestArgs(t *testing.T) []string {
	t.Helper()
	k, err := kernel.Find(os.Getenv(testKernelEnv))
	if err != nil {
		t.Fatal(err)
	}
	vmlinux, err := k.Vmlinux(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	initrd, _, err := initramfs.Build(t.Context(), initramfs.Options{Kernel: k, Set: initramfs.MicroVM})
	if err != nil {
		t.Fatal(err)
	}
	bare, _, err := initramfs.Build(t.Context(), initramfs.Options{Kernel: k, Set: bareSet, Agent: buildBare(t)})
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Resolve(t.Context(), "rootfs:"+helperTree(t), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	*kernelFlag, *initrdFlag, *bareFlag, *rootfsFlag = vmlinux, initrd, bare, img.EROFS
	t.Cleanup(func() { *kernelFlag, *initrdFlag, *bareFlag, *rootfsFlag = "", "", "", "" })
	args := []string{self, "-test.run=" + *guestFlag, "-test.timeout=" + *limitFlag, "-kernel=" + vmlinux, "-initrd=" + initrd, "-bare=" + bare, "-rootfs=" + img.EROFS}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	return args
}

// imageMachineID is in the image's /etc/machine-id.
const imageMachineID = "00000000000000000000000000000001"

// helperTree is a root file system with testdata/helper as /helper.
func helperTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	buildProgram(t, "./testdata/helper", filepath.Join(dir, "helper"))
	for _, d := range []string{"tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc", "machine-id"), []byte(imageMachineID+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "noexec"), []byte(fmt.Sprintln("no program")), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func buildProgram(t *testing.T, pkg, out string) {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
}

// bareSet has the modules of testdata/bare: every device's, and the button's.
var bareSet = initramfs.Set{
	Name: "bare",
	Required: []string{"virtio_mmio", "virtio_blk", "virtio_console", "virtio_rng", "virtio_net", "virtio_balloon",
		"vmw_vsock_virtio_transport", "virtiofs", "button", "evdev"},
}

func buildBare(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bare")
	buildProgram(t, "./testdata/bare", path)
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func helperSpec(args ...string) workload.Spec {
	return workload.Spec{
		ID: "0123456789abcdef", Argv: append([]string{"/helper"}, args...), Env: []string{"PATH=/"}, Cwd: "/",
		Rootfs: workload.Rootfs{EROFS: *rootfsFlag},
	}
}
