package microvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/microvm/snapshot"
	"github.com/duplex-run/duplex/vmm"
	"github.com/duplex-run/duplex/vmm/state"
)

// saving is a machine that is saved, and ended, when its agent asks for it with a
// mark. The mark can come again from a guest that is up to something: once counts.
type saving struct {
	memory  *os.File // empty, for the guest's memory
	machine *os.File // for the rest, encoded
	asked   chan struct{}
	once    sync.Once
	vm      *vmm.VM // set before it runs
}

func newSaving(memory, machine *os.File) *saving {
	return &saving{memory: memory, machine: machine, asked: make(chan struct{})}
}

// listen stops the guest at the mark.
func (s *saving) listen(cfg *vmm.Config) {
	tell := cfg.OnMark
	cfg.OnMark = func(value byte, ns int64) {
		if value == agentproto.MarkSnapshot {
			s.once.Do(func() {
				if s.vm.BeginPause() == nil { // else it has ended
					close(s.asked)
				}
			})
		}
		if tell != nil {
			tell(value, ns)
		}
	}
}

// run runs the VM until it is saved or has ended; saved says which.
func (s *saving) run(ctx context.Context) (exit vmm.Exit, saved bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() {
		defer end()
		select {
		case <-s.asked:
			done <- s.save(ctx)
		case <-ctx.Done():
			done <- ctx.Err()
		}
	}()
	exit, err = s.vm.Run(ctx)
	end()
	failed := <-done
	if failed != nil && !errors.Is(failed, context.Canceled) {
		err = errors.Join(err, &workload.Error{Op: "save the microVM", Err: failed})
	}
	return exit, failed == nil, err
}

func (s *saving) save(ctx context.Context) error {
	if err := s.vm.Pause(ctx); err != nil {
		return err
	}
	m, err := s.vm.Save(s.memory)
	if err != nil {
		return err
	}
	_, err = s.machine.WriteAt(m.Encode(), 0)
	return err
}

// readMachine reads an encoded machine, which is not trusted.
func readMachine(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, state.MaxSize+1))
}

// scratch makes a file without a name, in memory.
func scratch(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// duplicate is f once more, to give away.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// SnapshotKey says what a snapshot for spec has to be made of.
func (r Runner) SnapshotKey(spec workload.Spec) (snapshot.Key, error) {
	var k snapshot.Key
	memory, err := memorySize(spec.Resources)
	if err != nil {
		return k, err
	}
	h := r.hardware(spec, memory)
	cpus, _ := h.vcpus()
	k.Asked = snapshot.Asked{Image: spec.Rootfs.Digest, Kernel: r.Kernel, Cmdline: h.Cmdline, Memory: memory, CPUs: cpus}
	k.Duplex = r.Version
	if k.Host, err = snapshot.HostID(); err != nil {
		return k, &workload.Error{Op: "identify the host", Err: err}
	}
	for _, f := range []struct {
		id   *string
		path string
	}{{&k.KernelFile, r.Kernel}, {&k.InitrdFile, r.Initrd}, {&k.ImageFile, spec.Rootfs.EROFS}} {
		if *f.id, err = snapshot.FileID(f.path); err != nil {
			return k, explainNew(err)
		}
	}
	return k, nil
}

// CreateSnapshot boots a machine for spec up to the point where its agent would
// ask for work, and saves it in root. It returns the snapshot's directory. Nothing
// of the spec is in it but the image and the machine's size.
func (r Runner) CreateSnapshot(ctx context.Context, spec workload.Spec, root string) (string, error) {
	key, err := r.SnapshotKey(spec)
	if err != nil {
		return "", err
	}
	p, err := snapshot.Create(root)
	if err != nil {
		return "", explainSave(ctx, root, err)
	}
	machine, err := r.bootToSave(ctx, spec, p.Memory)
	if err != nil {
		return "", errors.Join(explainSave(ctx, root, err), p.Abandon())
	}
	dir, err := p.Commit(key, machine)
	return dir, explainSave(ctx, root, errors.Join(err, p.Abandon()))
}

// explainSave says what is wrong and what to do. A full disk is known by its message
// when the monitor found it.
func explainSave(ctx context.Context, root string, err error) error {
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case strings.Contains(err.Error(), unix.ENOSPC.Error()):
		return &workload.Error{Op: "save a microVM", Err: fmt.Errorf("the file system of %s is full: %w", root, err),
			Remedy: "Make room there ('duplex snapshot prune'), or name another place for the cache with DUPLEX_CACHE."}
	case isOwn(err):
		return err
	}
	return &workload.Error{Op: "save a microVM", Err: err}
}

func (r Runner) bootToSave(ctx context.Context, spec workload.Spec, memory *os.File) (_ []byte, err error) {
	spec.Volumes, r.Network = nil, nil
	size, err := memorySize(spec.Resources)
	if err != nil {
		return nil, err
	}
	m, err := r.newMachine(spec, size, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeStreams(m.streams)) }()
	m.hardware.Slots = 1 + maxVolumes
	m.hardware.Cmdline += " " + agentproto.SnapshotKey + "=" + diskID
	file, err := scratch("machine")
	if err != nil {
		return nil, errors.Join(err, closeStreams(m.options.agent))
	}
	defer func() { _ = file.Close() }()
	saved := false
	m.options.save, m.options.onSaved = newSaving(memory, file), func() { saved = true }
	exit, err := m.bootFor(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil && saved:
		p, err := readMachine(file)
		if err == nil {
			_, err = state.Decode(p) // what the monitor wrote: rather now than at each run
		}
		return p, err
	case err != nil && isOwn(err):
		return nil, err
	}
	return nil, m.quote(m.whyEnded(ending{exit, err}, errors.New("the guest's agent did not ask to be saved")))
}

// bootFor boots the machine for as long as an agent may take to come up.
func (m *machine) bootFor(ctx context.Context) (vmm.Exit, error) {
	ctx, end := context.WithTimeout(ctx, m.bootTimeout)
	defer end()
	exit, _, err := Boot(ctx, *m.hardware, m.options)
	m.overdue.Store(errors.Is(ctx.Err(), context.DeadlineExceeded))
	return exit, err
}
