package agentproto

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/duplex-run/duplex/internal/workload"
)

// RunFurther runs a further command in a machine that runs, over streams that open
// makes, one for each of ExecPorts. Its error is ErrGone when the machine, or its
// agent, has gone, and that of open when there are no streams.
func RunFurther(ctx context.Context, open func(Port) (io.ReadWriteCloser, error), spec workload.Spec, stdio workload.Stdio, started func()) (workload.Exit, error) {
	streams := map[Port]io.ReadWriteCloser{}
	session := rand.Text()
	for _, p := range ExecPorts {
		s, err := open(p)
		if err == nil {
			streams[p] = s
			err = Write(s, &Message{Type: Attach, Stream: p.Name(), Session: session})
		}
		if err != nil {
			for _, s := range streams {
				err = errors.Join(err, s.Close())
			}
			return workload.Exit{}, err
		}
	}
	s := &Session{Control: streams[Control], Stdin: streams[Stdin], Stdout: streams[Stdout], Stderr: streams[Stderr], OnStarted: started}
	if spec.Timeout > 0 {
		s.Deadline = time.Now().Add(spec.Timeout)
	}
	spec.Rootfs, spec.Volumes, spec.Extra = workload.Rootfs{}, nil, nil
	return s.Run(ctx, &Start{Spec: spec}, stdio)
}
