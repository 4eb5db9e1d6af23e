package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/container/handshake"
	"github.com/duplex-run/duplex/container/hook"
	"github.com/duplex-run/duplex/internal/confine"
	"github.com/duplex-run/duplex/internal/launch"
	"github.com/duplex-run/duplex/internal/workload"
)

// ociConn returns the handshake of an OCI process: behind the descriptors that
// are the user's, whose number is argv[1].
func ociConn() (handshake.Conn, error) {
	preserve := 0
	if len(os.Args) > 1 {
		preserve, _ = strconv.Atoi(os.Args[1])
	}
	first := handshake.ConnFD + max(preserve, 0)
	err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	_ = unix.Close(first + 1) // the executable
	return handshake.Conn{F: os.NewFile(uintptr(first), "handshake")}, err
}

// oci is an OCI container's process on its way to the user's program.
type oci struct {
	plan *handshake.Plan
	conn handshake.Conn // to its creator, then to who starts it
	tree *tree
	path string // of the program
}

// ociMain builds the container and becomes the program. It returns only when it
// could not.
func ociMain(c handshake.Conn) error {
	m, err := c.Expect(handshake.KindPlan)
	if err != nil || m.Plan == nil {
		return &handshake.StepError{Step: "start the container's process", Err: errors.Join(err, errors.New("no plan"))}
	}
	o := &oci{plan: m.Plan, conn: c}
	unix.Umask(0)
	steps := []ociStep{
		{"enter the namespaces", func() error { return join(o.plan.Join, o.plan.Watched) }},
		{"enter the cgroup", o.enterCgroup},
	}
	if m.Plan.Files != nil {
		o.tree = &tree{files: m.Plan.Files, cgroupNamespace: m.Plan.CgroupNamespace}
	}
	steps = append(steps, o.buildSteps(o.hooks)...)
	steps = append(steps, o.processSteps()...)
	if err := runSteps(steps); err != nil {
		return err
	}
	return o.execute()
}

// buildSteps make what the container has of its own.
func (o *oci) buildSteps(hooks func() error) []ociStep {
	var steps []ociStep
	if o.tree != nil {
		steps = o.tree.steps()
	}
	steps = append(steps,
		ociStep{"set the host name", o.setNames},
		ociStep{"bring the loopback interface up", o.loopback},
		ociStep{"set the sysctls", func() error { return setSysctls(o.plan.Sysctl) }},
		ociStep{"", hooks},
	)
	if o.tree != nil {
		steps = append(steps, o.tree.lastSteps()...)
	}
	return steps
}

func runSteps(steps []ociStep) error {
	for _, step := range steps {
		if err := step.run(); err != nil {
			if step.name == "" {
				return err
			}
			return &handshake.StepError{Step: step.name, Err: err}
		}
	}
	return nil
}

// ociStep is one step of the set-up; a name of "" says that its errors name
// themselves.
type ociStep struct {
	name string
	run  func() error
}

// join enters existing namespaces (setns(2)). A mount namespace comes with its
// root directory, which threads share: this one takes its own.
func join(list []handshake.Join, watched bool) error {
	if len(list) > 0 || watched {
		// The processes there must not look into this one (CVE-2016-9962).
		if err := confine.Undumpable(); err != nil {
			return err
		}
	}
	for _, j := range list {
		if j.Type == unix.CLONE_NEWNS {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare the root directory: %w", err)
			}
		}
		if err := unix.Setns(j.FD, j.Type); err != nil {
			return fmt.Errorf("setns %#x: %w", j.Type, err)
		}
		_ = unix.Close(j.FD)
	}
	return nil
}

// enterCgroup moves this thread, the only one that stays, into the v1 groups;
// into v2 the process was cloned.
func (o *oci) enterCgroup() error {
	for _, fd := range o.plan.CgroupTasks {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		_ = unix.Close(fd)
	}
	if !o.plan.CgroupNamespace {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return nil
}

func (o *oci) setNames() error {
	if o.plan.Hostname != "" {
		if err := unix.Sethostname([]byte(o.plan.Hostname)); err != nil {
			return err
		}
	}
	if o.plan.Domainname != "" {
		return unix.Setdomainname([]byte(o.plan.Domainname))
	}
	return nil
}

func (o *oci) loopback() error {
	if !o.plan.Loopback {
		return nil
	}
	return loopbackUp()
}

// hooks has the creator run those of the runtime's namespaces, then runs those
// of the container's.
func (o *oci) hooks() error {
	if o.plan.Files == nil {
		return nil
	}
	if err := o.conn.Send(handshake.Message{Kind: handshake.KindHooks}); err != nil {
		return err
	}
	if _, err := o.conn.Expect(handshake.KindGo); err != nil {
		return err
	}
	return hook.All(context.Background(), "createContainer", o.plan.CreateContainer, o.plan.State)
}

// execute waits for start and becomes the program.
func (o *oci) execute() error {
	if err := o.conn.Send(handshake.Message{Kind: handshake.KindReady}); err != nil {
		return err
	}
	if o.plan.ListenFD > 0 {
		if err := o.awaitStart(); err != nil {
			return err
		}
	}
	err := hook.All(context.Background(), "startContainer", o.plan.StartContainer, o.plan.State)
	if err == nil {
		err = o.become()
	}
	_ = o.conn.Send(handshake.Failed(err)) // who started it, or nobody
	os.Exit(workload.StatusError)
	return nil
}

// awaitStart takes the connection of who starts the container in place of the
// one of who created it.
func (o *oci) awaitStart() error {
	_ = o.conn.F.Close()
	for {
		fd, _, err := unix.Accept4(o.plan.ListenFD, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for start: %w", err)
		}
		o.conn = handshake.Conn{F: os.NewFile(uintptr(fd), "start")}
		_, err = o.conn.Expect(handshake.KindGo)
		if err == nil {
			return unix.Close(o.plan.ListenFD)
		}
		_ = o.conn.F.Close() // it changed its mind, or was killed
		if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			continue
		}
	}
}

// become takes on what only the program may have, and executes it.
func (o *oci) become() error {
	p := o.plan.Process
	if p == nil {
		return errors.New("the bundle's config.json has no process")
	}
	if err := setRlimits(p.Rlimits); err != nil {
		return err
	}
	if p.NoNewPrivs && !p.Notify { // else it is in force already
		if err := o.seccomp(); err != nil {
			return &handshake.StepError{Step: "install the seccomp filter", Err: err}
		}
	}
	err := unix.Exec(o.path, p.Argv, p.Env)
	return &handshake.StepError{Step: "exec", Err: cannotExecute(launch.ExecFailed(p.Argv[0], err))}
}
