package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/image/sources"
	"github.com/duplex-run/duplex/initramfs"
	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
)

// cmdline is the kernel's command line. The machine ends at once when the kernel
// panics (QEMU runs with -no-reboot). The rest leaves out what costs an emulated
// CPU much and gives the lab nothing; in instruction time (-icount shift=1) of
// Debian's 6.1.0-56-cloud-amd64, which takes 4.4 s to load its last module
// without them:
//   - cryptomgr.notests=1: the self-tests of every cipher, 1.75 s;
//   - initcall_blacklist=ftrace_check_for_weak_functions: the function tracer's search
//     for overridden functions, some 0.14 s (docs/boot-time.md);
//   - rcupdate.rcu_expedited=1: no waiting for grace periods, 0.05 s;
//   - mitigations=off: no retpolines and flushes, for what a guest could learn of
//     an emulated CPU's caches;
//   - maxcpus=1: the agent brings up the others later, a quarter of the CPU time
//     of a boot with two;
//   - no_timer_check, tsc=reliable: no doubts about the emulated clocks.
const cmdline = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable " +
	"mitigations=off cryptomgr.notests=1 initcall_blacklist=ftrace_check_for_weak_functions rcupdate.rcu_expedited=1 maxcpus=1 " +
	agentproto.TransportKey + "=" + agentproto.TransportSerial

// The machine's root is the image that duplex carries.
func init() { sources.Use() }

// job is one run, ready to start.
type job struct {
	config   config
	start    *agentproto.Start
	receiver *receiver
	root     *image.Image
}

// prepare makes everything that the machine needs. The caller closes job.root.
func prepare(ctx context.Context, o Options) (*job, error) {
	khz := make(chan int64, 1)
	go func() { khz <- measureTSC() }()
	k, err := kernel.Find(o.Kernel)
	if err != nil {
		return nil, err
	}
	kernelFile, err := k.Vmlinux(ctx)
	if err != nil {
		return nil, err
	}
	initrd, _, err := initramfs.Build(ctx, initramfs.Options{Kernel: k, Set: initramfs.Lab})
	if err != nil {
		return nil, err
	}
	root, err := image.Resolve(ctx, "builtin", image.Options{})
	if err != nil {
		return nil, err
	}
	j := &job{root: root}
	if err := j.load(ctx, o); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	tsc := int64(deterministicTSC)
	if !o.Deterministic {
		tsc = <-khz
	}
	j.config.kernel, j.config.initrd = kernelFile, initrd
	j.config.append = fmt.Sprintf("%s tsc_early_khz=%d", cmdline, tsc)
	j.config.memory, j.config.cpus, j.config.deterministic = o.Memory, o.CPUs, o.Deterministic
	return j, nil
}

// rootSerial is the serial number of the disk with the lab's root file system.
const rootSerial = "root"

// load packs what is carried and says what the agent has to do.
func (j *job) load(ctx context.Context, o Options) error {
	own, closer, err := j.root.Open()
	if err != nil {
		return err
	}
	defer func() { _ = closer.Close() }()
	list, err := o.plan(ctx, own)
	if err != nil {
		return err
	}
	packs, disks, err := list.packs(ctx)
	if err != nil {
		return err
	}
	if j.receiver, err = newReceiver(list.back, o.Memory); err != nil {
		return err
	}
	j.config.disks = append([]disk{{serial: rootSerial, path: j.root.EROFS}}, disks...)
	j.start = &agentproto.Start{
		Spec: workload.Spec{
			ID: "lab", Hostname: "lab", Argv: o.Argv, Env: o.environ(list.path), Cwd: o.Cwd,
			TTY: o.TTY, Size: o.Size, Interactive: o.Interactive,
		},
		Root: rootSerial,
		Lab:  &agentproto.Lab{Packs: packs, Return: list.back, Skip: j.receiver.skip},
	}
	return nil
}

// InLab is set in the environment of everything that runs in the lab.
const InLab = "DUPLEX_IN_LAB"

// environ is the environment of the command: the caller's DUPLEX_ variables
// (but the runtime directory, which is the lab's own), Options.Env, and what
// says where it is.
func (o Options) environ(path []string) []string {
	env := []string{"PATH=" + strings.Join(append([]string{launch.DefaultPath}, path...), ":"), "HOME=/root"}
	if term := os.Getenv("TERM"); o.TTY && term != "" {
		env = append(env, "TERM="+term)
	}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "DUPLEX_") && !strings.HasPrefix(e, "DUPLEX_RUNTIME=") {
			env = append(env, e)
		}
	}
	return append(append(env, o.Env...), InLab+"=1")
}
