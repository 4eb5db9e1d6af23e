package runs

import (
	"io"
	"os"
	"sync"

	"github.com/duplex-run/duplex/internal/workload"
)

// Hub has the streams of a detached workload: what it writes goes to the log and
// to everybody who is attached; what those type goes to it.
type Hub struct {
	mu      sync.Mutex
	log     *logWriter
	clients map[int]*[maxFiles]*os.File
	next    int
	input   *os.File // the end that is written to; nil when it reads the end of file
	sizes   chan workload.WinSize
}

// NewHub makes the streams of o, and sets those of stdio.
func (o *Own) NewHub(interactive bool, stdio *workload.Stdio) (*Hub, error) {
	log, err := newLog(o.dir)
	if err != nil {
		return nil, err
	}
	h := &Hub{log: log, clients: map[int]*[maxFiles]*os.File{}, sizes: make(chan workload.WinSize, 1)}
	stdio.Out, stdio.Err, stdio.Resize = outlet{h, 1}, outlet{h, 2}, h.sizes
	if interactive {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		stdio.In, h.input = r, w
	}
	return h, nil
}

// outlet is the workload's stdout (1) or stderr (2).
type outlet struct {
	hub    *Hub
	stream int
}

// Write does not fail: whoever cannot be written to is not attached any more, and
// a log on a full disk is no reason to end the workload.
func (o outlet) Write(p []byte) (int, error) {
	h := o.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log.write(o.stream, p)
	for id, files := range h.clients {
		if _, err := files[o.stream].Write(p); err != nil {
			delete(h.clients, id)
		}
	}
	return len(p), nil
}

// join attaches streams until leave is called.
func (h *Hub) join(files []*os.File) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := h.next
	h.next++
	h.clients[id] = (*[maxFiles]*os.File)(files)
	if h.input != nil {
		go func() { _, _ = io.Copy(h.input, files[0]) }() // to the end of the caller's, or of the run
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.clients, id)
	}
}

func (h *Hub) resize(size workload.WinSize) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if size.Rows > 0 && size.Cols > 0 {
		newest(h.sizes, size)
	}
}
