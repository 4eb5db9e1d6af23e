package kernel

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/duplex-run/duplex/internal/workload"
)

// Info is what Inspect finds.
type Info struct {
	Kernel
	Format  string `json:"format"` // FormatBzImage or FormatVmlinux
	Version string `json:"version"`
	// BzImage is set for a bzImage.
	BzImage *BzImageInfo `json:"bzimage,omitempty"`
	// Vmlinux is the ELF kernel, nil when Problem says why it cannot be had.
	Vmlinux *VmlinuxInfo `json:"vmlinux,omitempty"`
	Problem string       `json:"problem,omitempty"`
	// ConfigSource is "embedded" (IKCONFIG), the path of the configuration, or ""
	// when none was found and Options are all unknown.
	ConfigSource string `json:"config_source"`
	// Options the microVM needs, and the lab beyond these.
	Options    []Option `json:"options"`
	LabOptions []Option `json:"lab_options"`
	// Missing names the required options of the microVM that the kernel lacks.
	Missing []string `json:"missing"`
}

// BzImageInfo is the boot header of a bzImage.
type BzImageInfo struct {
	Protocol    string `json:"protocol"`    // boot protocol, "2.15"
	Compression string `json:"compression"` // "lz4", or what is wrong with it
	Entry64     bool   `json:"entry64"`     // 64-bit entry at 0x200 (XLF_KERNEL_64)
}

// VmlinuxInfo is the ELF kernel.
type VmlinuxInfo struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	// Entry is the physical address of the 64-bit entry point, startup_64.
	Entry uint64 `json:"entry"`
	// PVHEntry is the physical address of the 32-bit PVH entry point
	// (XEN_ELFNOTE_PHYS32_ENTRY), 0 when the kernel has none.
	PVHEntry uint64 `json:"pvh_entry,omitempty"`
}

// Inspect reads the kernel k. A payload that cannot be decompressed is no error
// but Info.Problem. Errors are *workload.Error.
func Inspect(ctx context.Context, k *Kernel) (*Info, error) {
	f, err := os.Open(k.Image)
	if err != nil {
		return nil, &workload.Error{Op: "open kernel", Err: err}
	}
	defer func() { _ = f.Close() }()
	id, err := identify(f)
	if err != nil {
		return nil, err
	}
	info := &Info{Kernel: *k, Format: id.format, Version: id.version, Missing: []string{}}
	if id.bz != nil {
		info.BzImage = id.bz.info(f)
	}
	config, err := info.readVmlinux(ctx)
	if ctx.Err() != nil {
		return nil, &workload.Error{Op: "inspect kernel " + k.Name, Err: ctx.Err()}
	}
	if err != nil {
		info.Problem = err.Error()
	}
	if config != nil {
		info.ConfigSource = "embedded"
	} else if k.Config != "" {
		if config, err = readConfigFile(k.Config); err != nil {
			return nil, &workload.Error{Op: "read kernel configuration", Err: err}
		}
		info.ConfigSource = k.Config
	}
	var modules *resolver
	if k.ModulesDir != "" {
		if modules, err = newResolver(k.ModulesDir); err != nil {
			return nil, &workload.Error{Op: "read modules", Err: err}
		}
	}
	info.Options = check(vmNeeds, config, modules)
	info.LabOptions = check(labNeeds, config, modules)
	for _, o := range info.Options {
		if !o.Optional && !o.ok() && o.Value != Unknown {
			info.Missing = append(info.Missing, o.Option)
		}
	}
	return info, nil
}

// info describes the header; r is the image.
func (img *bzImage) info(r io.ReaderAt) *BzImageInfo {
	out := &BzImageInfo{
		Protocol: fmt.Sprintf("%d.%02d", img.protocol>>8, img.protocol&0xff),
		Entry64:  img.entry64,
	}
	head := make([]byte, min(16, img.length))
	if _, err := r.ReadAt(head, img.payload); err != nil {
		out.Compression = err.Error()
		return out
	}
	c, err := detect(head)
	if err != nil {
		out.Compression = err.Error()
		return out
	}
	out.Compression = c.name
	return out
}

// readVmlinux fills in Vmlinux and returns the embedded configuration, if any.
func (info *Info) readVmlinux(ctx context.Context) (configuration, error) {
	path, err := info.Kernel.Vmlinux(ctx)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	size, err := regularSize(f)
	if err != nil {
		return nil, err
	}
	v := &VmlinuxInfo{Path: path, Bytes: size}
	if v.Entry, v.PVHEntry, err = entries(f); err != nil {
		return nil, err
	}
	info.Vmlinux = v
	if info.Version == "" { // a bzImage without a version string
		if info.Version, err = bannerVersion(f, size); err != nil {
			return nil, err
		}
	}
	return embeddedConfig(f, size)
}

// entries returns the entry points of the ELF kernel r.
func entries(r io.ReaderAt) (entry, pvh uint64, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := readAtMost(p.Open(), maxNotes)
		if err != nil {
			return 0, 0, fmt.Errorf("notes: %w", err)
		}
		if pvh, err = pvhEntry(notes); err != nil {
			return 0, 0, fmt.Errorf("notes: %w", err)
		}
		if pvh != 0 {
			break
		}
	}
	return f.Entry, pvh, nil
}

const (
	maxNotes   = 1 << 20
	pvhNote    = 18 // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
	pvhOwner   = "Xen\x00"
	noteHeader = 12
)

// errNotes reports a note whose sizes lie.
var errNotes = errors.New("malformed ELF note")

// pvhEntry finds the PVH entry point among ELF notes (elf(5), "Notes"): sizes of
// name and descriptor and a type, 4 bytes each, then both, padded to 4 bytes.
func pvhEntry(notes []byte) (uint64, error) {
	le := binary.LittleEndian
	for len(notes) >= noteHeader {
		nameSize, descSize := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:]))
		kind := le.Uint32(notes[8:])
		notes = notes[noteHeader:]
		descAt := (nameSize + 3) &^ 3
		if descAt+descSize > uint64(len(notes)) {
			return 0, errNotes
		}
		name, desc := notes[:nameSize], notes[descAt:descAt+descSize]
		if string(name) == pvhOwner && kind == pvhNote {
			switch len(desc) {
			case 4:
				return uint64(le.Uint32(desc)), nil
			case 8:
				return le.Uint64(desc), nil
			}
			return 0, errNotes
		}
		notes = notes[min(uint64(len(notes)), (descAt+descSize+3)&^3):]
	}
	return 0, nil
}
