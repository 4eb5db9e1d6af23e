package container

import "github.com/duplex-run/duplex/container/inside"

// Init turns a re-executed process into the container's init or its workload.
// In any other process it does nothing. main must call it before anything else.
func Init() { inside.Main() }
