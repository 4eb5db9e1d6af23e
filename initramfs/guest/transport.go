package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/agentproto"
)

// links are the connected streams.
type links map[agentproto.Port]*os.File

// connect opens every stream; control last, so that the host has all of them
// when it sees that one.
func connect(transport string) (links, error) {
	switch transport {
	case agentproto.TransportVsock:
		return connectVsock()
	case agentproto.TransportSerial:
		return connectSerial()
	}
	return nil, fmt.Errorf("kernel command line: no transport %q", transport)
}

func connectVsock() (links, error) {
	l := make(links)
	for _, p := range []agentproto.Port{agentproto.Stdin, agentproto.Stdout, agentproto.Stderr, agentproto.Control} {
		fd, err := agentproto.DialHost(p.Vsock())
		if err != nil {
			return nil, fmt.Errorf("connect vsock %s: %w", p.Name(), err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, err
		}
		l[p] = os.NewFile(uintptr(fd), "vsock:"+p.Name())
	}
	return l, nil
}

// portWait bounds how long the virtio-serial ports may take to appear.
const portWait = 20 * time.Second

// connectSerial opens the virtio-serial ports by name. The device announces its
// ports one by one over its control queue after the driver is bound (virtio
// 1.2, 5.3.6.2), so they are awaited; the return port may be absent.
func connectSerial() (links, error) {
	deadline := time.Now().Add(portWait)
	for {
		names, err := serialPorts("/sys/class/virtio-ports")
		if err != nil {
			return nil, err
		}
		if all(names) {
			return openSerial(names)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("virtio-serial ports: only %v appeared", names)
		}
		time.Sleep(time.Millisecond)
	}
}

func all(names map[string]string) bool {
	for p := agentproto.Control; p <= agentproto.Further; p++ {
		if names[p.Serial()] == "" {
			return false
		}
	}
	return true
}

// serialPorts maps the names of the ports to their device nodes' names.
func serialPorts(class string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(class, "*", "name"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(files))
	for _, f := range files {
		name, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[strings.TrimSpace(string(name))] = filepath.Base(filepath.Dir(f))
	}
	return out, nil
}

func openSerial(names map[string]string) (links, error) {
	l := make(links)
	for p := agentproto.Control; p <= agentproto.Further; p++ {
		f, err := os.OpenFile("/dev/"+names[p.Serial()], os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		l[p] = f
	}
	return l, nil
}
