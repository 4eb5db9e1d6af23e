package fs

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/virtio"
	"github.com/duplex-run/duplex/vmm/virtio/queue"
)

const (
	// MaxTag is the longest tag in bytes (§5.11.4).
	MaxTag = 36
	// MaxIO bounds one read or write, in bytes.
	MaxIO = 1 << 20
	// DefaultMaxInodes is the bound of inodes where Options has none and the
	// process may open enough files.
	DefaultMaxInodes = 1 << 18
	// MaxHandles bounds the files and directories that the guest has open.
	MaxHandles = 4096

	queueSize    = 512 // MaxIO in pages, and the headers
	hiprioSize   = 64
	queueHiprio  = 0
	queueRequest = 1
)

// Options says what to share and how.
type Options struct {
	// Dir is the directory to share, or one regular file: then the guest sees a
	// directory with that file in it, under the name FileName, and can make or
	// remove nothing there. It is opened by New, which follows symbolic links.
	Dir string
	// Tag is the name by which the guest mounts it: 1 to MaxTag bytes of UTF-8
	// without NUL.
	Tag string
	// ReadOnly refuses everything that would change the directory, with EROFS.
	ReadOnly bool
	// MaxInodes bounds the inodes that the guest knows at one moment, each of
	// which is an open descriptor. 0 means DefaultMaxInodes, or a quarter of the
	// descriptors this process may open, whichever is less.
	MaxInodes int
}

// Device is the file system device; it implements virtio.Device.
type Device struct {
	engine virtio.Engine
	mu     sync.Mutex // of server: the engine serves both queues at once
	server *server
	config []byte

	closing sync.Once
	closed  error
}

// FileName is the name of a shared file in the guest.
const FileName = "file"

// New opens o.Dir and makes a device that shares it.
func New(o Options) (*Device, error) {
	if len(o.Tag) < 1 || len(o.Tag) > MaxTag {
		return nil, fmt.Errorf("share %s: tag of %d bytes, not 1 to %d", o.Dir, len(o.Tag), MaxTag)
	}
	if o.MaxInodes == 0 {
		o.MaxInodes = min(DefaultMaxInodes, openFiles()/4)
	}
	survive()
	s, err := newServer(o)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", o.Dir, err)
	}
	d := &Device{server: s, config: make([]byte, MaxTag+4)}
	copy(d.config, o.Tag)
	d.config[MaxTag] = 1 // num_request_queues
	return d, nil
}

// survive keeps a guest's write beyond RLIMIT_FSIZE from killing this process: it
// fails with EFBIG instead. The signal is caught, not ignored, as children would
// inherit that.
var survive = sync.OnceFunc(func() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGXFSZ)
})

// openFiles is how many descriptors this process may open.
func openFiles() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	return int(min(lim.Cur, 1<<30))
}

// File is FileName when a file is shared, else empty.
func (d *Device) File() string {
	if d.server.file < 0 {
		return ""
	}
	return FileName
}

// Type implements virtio.Device.
func (d *Device) Type() uint32 { return virtio.TypeFS }

// Features implements virtio.Device. The notification queue is not offered.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device: high priority, requests (§5.11.2).
func (d *Device) QueueSizes() []uint16 { return []uint16{hiprioSize, queueSize} }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(offset uint64, p []byte) {
	virtio.ReadConfigSpace(d.config, offset, p)
}

// WriteConfig implements virtio.Device; nothing is writable.
func (d *Device) WriteConfig(uint64, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(a virtio.Activation) error {
	if len(a.Queues) <= queueRequest || a.Queues[queueRequest] == nil {
		return errors.New("fs: driver set up no request queue")
	}
	d.engine.Start(a)
	return nil
}

// Kick implements virtio.Device.
func (d *Device) Kick(q int) { d.engine.Serve(q, d.serve) }

func (d *Device) serve(c *queue.Chain) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.server.serve(c)
}

// Reset implements virtio.Device: what the guest had open is closed.
func (d *Device) Reset() {
	d.engine.Stop()
	d.server.end()
}

// Close implements virtio.Device.
func (d *Device) Close() error {
	d.closing.Do(func() {
		d.Reset()
		d.closed = d.server.close()
	})
	return d.closed
}

var _ virtio.Device = (*Device)(nil)
