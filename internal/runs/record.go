package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
)

// Record is what is known of a run.
type Record struct {
	ID        string             `json:"id"`
	Name      string             `json:"name,omitempty"`
	Isolation workload.Isolation `json:"isolation"`
	Image     string             `json:"image"`
	Argv      []string           `json:"argv,omitempty"` // once it is known
	TTY       bool               `json:"tty"`
	// Interactive: the workload's stdin is open.
	Interactive bool `json:"interactive"`
	Detached    bool `json:"detached"`
	// Remove forgets a detached run when it ends.
	Remove bool `json:"remove"`
	// Lab: the run is in the lab machine, where this process does not reach it.
	Lab       bool               `json:"lab"`
	Resources workload.Resources `json:"resources"`
	PID       int                `json:"pid"` // of duplex
	Created   time.Time          `json:"created"`
	Started   time.Time          `json:"started,omitzero"`
	Finished  time.Time          `json:"finished,omitzero"`
	// Exit is set when the run has ended, unless Error says why there is none.
	Exit  *workload.Exit `json:"exit,omitempty"`
	Error string         `json:"error,omitempty"`
}

// State is docker's word for where a run is.
func (r *Record) State() string {
	switch {
	case !r.Finished.IsZero():
		return "exited"
	case r.Started.IsZero():
		return "created"
	}
	return "running"
}

// Status is the exit status of a run that has ended.
func (r *Record) Status() int {
	if r.Exit == nil {
		return workload.StatusError
	}
	return r.Exit.Status()
}

const (
	recordName  = "record"
	lockName    = "lock"
	controlName = "control"
	maxRecord   = 4 << 20
)

// store is the directory of all runs; a name that no run has.
func store() (string, error) {
	root, err := hostdir.RuntimeRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, hostdir.RunsName)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the directory of runs: %w", err)
	}
	return dir, hostdir.Owned(dir)
}

// Own is a run's directory in the hands of its process. Its methods may be called
// by several goroutines; on a nil Own they do nothing.
type Own struct {
	dir    string
	lock   *os.File
	record Record
	server *Server
	mu     chan struct{} // holds the token of who changes record
}

// Create makes the directory of a new run. Its id and its name, if any, must be
// nobody's.
func Create(r Record) (*Own, error) {
	dir, err := store()
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := free(dir, r.Name); err != nil {
		return nil, err
	}
	o := &Own{dir: filepath.Join(dir, r.ID), record: r, mu: make(chan struct{}, 1)}
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the run: %w", err)
	}
	if o.lock, err = os.OpenFile(filepath.Join(o.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = unix.Flock(int(o.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = o.save()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the directory of the run: %w", err), os.RemoveAll(o.dir))
	}
	return o, nil
}

// free says whether a name can be given out.
func free(dir, name string) error {
	if name == "" {
		return nil
	}
	list, err := read(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name == name {
			return &workload.Error{
				Op: fmt.Sprintf("the name %q is in use by run %s", name, e.ID[:min(12, len(e.ID))]), Remedy: fmt.Sprintf("Remove it with 'duplex rm %s', or take another name.", name),
			}
		}
	}
	return nil
}

// Lock is the file that is locked, for a process that is to take the run over:
// Adopt.
func (o *Own) Lock() *os.File { return o.lock }

// Adopt takes over a run that another process has made and hands on, with its Lock.
func Adopt(id string, lock *os.File) (*Own, error) {
	dir, err := store()
	if err != nil {
		return nil, err
	}
	o := &Own{dir: filepath.Join(dir, id), lock: lock, mu: make(chan struct{}, 1)}
	if o.record, err = readRecord(o.dir); err != nil {
		return nil, err
	}
	return o, o.Update(func(r *Record) { r.PID = os.Getpid() })
}

// Record is a copy of what is known.
func (o *Own) Record() Record {
	o.mu <- struct{}{}
	defer func() { <-o.mu }()
	return o.record
}

// Update changes what is known.
func (o *Own) Update(change func(*Record)) error {
	if o == nil {
		return nil
	}
	o.mu <- struct{}{}
	defer func() { <-o.mu }()
	change(&o.record)
	return o.save()
}

func (o *Own) save() error {
	text, err := json.MarshalIndent(&o.record, "", "  ")
	if err != nil {
		return err
	}
	part := filepath.Join(o.dir, recordName+".part")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(o.dir, recordName))
}

// Discard forgets the run: it has not been started, or nobody wants to know of it.
func (o *Own) Discard() error {
	if o == nil {
		return nil
	}
	err := os.RemoveAll(o.dir)
	return errors.Join(err, o.lock.Close())
}

// Finish ends the run: it is forgotten unless it was detached and is to be kept.
func (o *Own) Finish(exit workload.Exit, failure error) error {
	if o == nil {
		return nil
	}
	if r := o.Record(); !r.Detached || r.Remove || r.Started.IsZero() {
		o.server.finish(exit, failure)
		return o.Discard()
	}
	err := o.Update(func(r *Record) {
		r.Finished, r.Exit = time.Now(), &exit
		if failure != nil {
			r.Exit, r.Error = nil, failure.Error()
		}
	})
	o.server.finish(exit, failure)
	for _, name := range []string{controlName, lockName} { // the lock last: until then it is ours
		if rerr := os.Remove(filepath.Join(o.dir, name)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, o.lock.Close())
}

func readRecord(dir string) (Record, error) {
	var r Record
	f, err := os.Open(filepath.Join(dir, recordName))
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || st.Size() > maxRecord {
		return r, errors.Join(fmt.Errorf("%s: not a record", f.Name()), err)
	}
	if err := json.NewDecoder(f).Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if r.ID != filepath.Base(dir) {
		return r, fmt.Errorf("%s: of another run", f.Name())
	}
	return r, nil
}

// cleanUp bounds how long a run whose end is known may take to put things away.
const cleanUp = 5 * time.Second

// awaitCleanUp waits until the process of a run that has ended is done with it.
func awaitCleanUp(path string) {
	for until := time.Now().Add(cleanUp); time.Now().Before(until); time.Sleep(pollEvery) {
		if r, err := readRecord(path); err != nil || r.Finished.IsZero() || !isLocked(path) {
			return
		}
	}
}

// Remove forgets a run that has ended.
func Remove(id string) error {
	dir, err := store()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, id)
	awaitCleanUp(path)
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(path, lockName)); err == nil {
		return &workload.Error{Op: "remove run " + id, Err: errors.New("it is running"), Remedy: "Stop it first, or give -f."}
	}
	return os.RemoveAll(path)
}

// Dir is the directory of a run.
func Dir(id string) (string, error) {
	dir, err := store()
	return filepath.Join(dir, id), err
}

// Path is a file in the run's directory.
func (o *Own) Path(name string) string { return filepath.Join(o.dir, name) }
