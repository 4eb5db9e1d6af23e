package isolation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Schema names the format of an Observation.
const Schema = "duplex.probe/1"

// Bounds on what Parse accepts.
const (
	MaxDocument = 1 << 20 // bytes of JSON
	maxList     = 4096    // entries of any list
	maxText     = 512     // bytes of any text
)

// Observation is what the probe saw and what it tried, on one side.
type Observation struct {
	Schema     string   `json:"schema"`
	Kernel     string   `json:"kernel"`  // uname release
	BootID     string   `json:"boot_id"` // of the kernel that answered
	UID        int      `json:"uid"`
	Processes  int      `json:"processes"` // numeric directories in /proc, the probe included
	Caps       Caps     `json:"capabilities"`
	Seccomp    int      `json:"seccomp"` // proc_pid_status(5): 0 off, 1 strict, 2 filter
	NoNewPrivs bool     `json:"no_new_privs"`
	UIDMap     []string `json:"uid_map"` // lines of /proc/self/uid_map, single spaces
	// Writable lists what could be opened for writing; nothing is written.
	Writable []Walk    `json:"writable"`
	Devices  []Device  `json:"devices"`
	Network  Network   `json:"network"`
	Values   Values    `json:"values"`
	Attempts []Attempt `json:"attempts"`
}

// Caps are capability sets as proc_pid_status(5) prints them: hexadecimal.
type Caps struct {
	Effective string `json:"effective"`
	Bounding  string `json:"bounding"`
}

// Walk is what a bounded walk below Root found.
type Walk struct {
	Root string `json:"root"`
	// Files is how many regular files with a write bit were tried, Writable how
	// many of them could be opened for writing.
	Files    int `json:"files"`
	Writable int `json:"writable"`
	// Truncated says that the walk ended at its bound, so both are lower limits.
	Truncated bool `json:"truncated,omitempty"`
	// Paths holds the first of the writable ones.
	Paths []string `json:"paths,omitempty"`
}

// Device is a node in /dev.
type Device struct {
	Path string `json:"path"`
	Node string `json:"node"`            // "c 1:3"
	Err  string `json:"error,omitempty"` // errno name; empty when it could be opened for reading
}

// Network is what the network namespace holds.
type Network struct {
	Namespace  string   `json:"namespace"`  // "net:[N]", where /proc/self/ns/net leads
	Interfaces []string `json:"interfaces"` // names, sorted
	Abstract   int      `json:"abstract"`   // Unix sockets with an abstract name, each counted once
}

// Values are facts that differ between kernels or machines.
type Values struct {
	BTime    int64    `json:"btime"`     // boot time, seconds since 1970 (/proc/stat)
	MemTotal int64    `json:"mem_total"` // KiB (/proc/meminfo)
	CPUModel string   `json:"cpu_model"` // first "model name" of /proc/cpuinfo
	Mounts   []string `json:"mounts"`    // "major:minor fstype source", from mountinfo
}

// Attempt is something the probe tried and undid.
type Attempt struct {
	Name string `json:"name"`
	// Allowed says that the kernel's permission checks were passed.
	Allowed bool `json:"allowed"`
	// Errno is the name of what came back ("EPERM", "SIGSYS"); a permission
	// check can be passed and the call still fail on a harmless argument.
	Errno string `json:"errno,omitempty"`
	// Step is set when the attempt could not even be made, and says why.
	Step string `json:"step,omitempty"`
}

// Parse reads the document a probe printed.
func Parse(b []byte) (*Observation, error) {
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("parse the probe's document: %d bytes, at most %d", len(b), MaxDocument)
	}
	var o Observation
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&o); err != nil {
		return nil, fmt.Errorf("parse the probe's document: %w", err)
	}
	if o.Schema != Schema {
		return nil, fmt.Errorf("parse the probe's document: schema %q, want %q", clean(o.Schema), Schema)
	}
	if len(o.Writable) > maxList || len(o.Devices) > maxList || len(o.Attempts) > maxList {
		return nil, errors.New("parse the probe's document: a list is too long")
	}
	o.clean()
	return &o, nil
}

func (o *Observation) clean() {
	for _, s := range []*string{&o.Kernel, &o.BootID, &o.Caps.Effective, &o.Caps.Bounding, &o.Values.CPUModel} {
		*s = clean(*s)
	}
	o.UIDMap = cleanAll(o.UIDMap)
	o.Network.Namespace, o.Network.Interfaces = clean(o.Network.Namespace), cleanAll(o.Network.Interfaces)
	o.Values.Mounts = cleanAll(o.Values.Mounts)
	for i := range o.Writable {
		w := &o.Writable[i]
		w.Root, w.Paths = clean(w.Root), cleanAll(w.Paths)
	}
	for i := range o.Devices {
		d := &o.Devices[i]
		d.Path, d.Node, d.Err = clean(d.Path), clean(d.Node), clean(d.Err)
	}
	for i := range o.Attempts {
		a := &o.Attempts[i]
		a.Name, a.Errno, a.Step = clean(a.Name), clean(a.Errno), clean(a.Step)
	}
}

func cleanAll(list []string) []string {
	list = list[:min(len(list), maxList)]
	for i, s := range list {
		list[i] = clean(s)
	}
	return list
}

// clean makes text from inside a side safe to print on a terminal.
func clean(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
