package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/duplex-run/duplex/internal/plainjson"
)

// document is specs.Spec with what is of other systems only noted: package json
// prepares for every type it might meet, and those take it longer than the file.
type document struct {
	*specs.Spec
	Solaris noted `json:"solaris"`
	Windows noted `json:"windows"`
	VM      noted `json:"vm"`
	ZOS     noted `json:"zos"`
	FreeBSD noted `json:"freebsd"`
}

// noted is whether a property is there.
type noted bool

func (n *noted) UnmarshalJSON(text []byte) error {
	*n = noted(!bytes.Equal(text, []byte("null")))
	return nil
}

// decode parses a configuration without a look at what it says.
func decode(data []byte) (*specs.Spec, error) {
	s := &specs.Spec{}
	if !plainjson.Decode(data, s) {
		return decodeAny(data)
	}
	if s.Solaris != nil {
		s.Solaris = &specs.Solaris{}
	}
	if s.Windows != nil {
		s.Windows = &specs.Windows{}
	}
	if s.VM != nil {
		s.VM = &specs.VM{}
	}
	if s.ZOS != nil {
		s.ZOS = &specs.ZOS{}
	}
	if s.FreeBSD != nil {
		s.FreeBSD = &specs.FreeBSD{}
	}
	return s, nil
}

// decodeAny is decode by package json.
func decodeAny(data []byte) (*specs.Spec, error) {
	d := document{Spec: &specs.Spec{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&d); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the configuration")
	}
	if d.Solaris {
		d.Spec.Solaris = &specs.Solaris{}
	}
	if d.Windows {
		d.Spec.Windows = &specs.Windows{}
	}
	if d.VM {
		d.Spec.VM = &specs.VM{}
	}
	if d.ZOS {
		d.Spec.ZOS = &specs.ZOS{}
	}
	if d.FreeBSD {
		d.Spec.FreeBSD = &specs.FreeBSD{}
	}
	return d.Spec, nil
}
