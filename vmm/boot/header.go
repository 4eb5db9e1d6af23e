package boot

import (
	"fmt"
	"io"

	"github.com/duplex-run/duplex/vmm/memory"
)

// setupHeader is struct setup_header, boot.rst "The Real-Mode Kernel Header":
// it starts at byte 0x1f1 of a bzImage and of the zero page.
type setupHeader struct {
	SetupSects          uint8
	RootFlags           uint16
	SysSize             uint32
	RAMSize             uint16
	VidMode             uint16
	RootDev             uint16
	BootFlag            uint16
	Jump                uint16
	Magic               uint32
	Version             uint16
	RealModeSwitch      uint32
	StartSysSeg         uint16
	KernelVersion       uint16
	TypeOfLoader        uint8
	LoadFlags           uint8
	SetupMoveSize       uint16
	Code32Start         uint32
	RamdiskImage        uint32
	RamdiskSize         uint32
	BootsectKludge      uint32
	HeapEndPtr          uint16
	ExtLoaderVer        uint8
	ExtLoaderType       uint8
	CmdLinePtr          uint32
	InitrdAddrMax       uint32
	KernelAlignment     uint32
	RelocatableKernel   uint8
	MinAlignment        uint8
	XLoadFlags          uint16
	CmdlineSize         uint32
	HardwareSubarch     uint32
	HardwareSubarchData uint64
	PayloadOffset       uint32
	PayloadLength       uint32
	SetupData           uint64
	PrefAddress         uint64
	InitSize            uint32
	HandoverOffset      uint32
	KernelInfoOffset    uint32
}

const (
	headerOffset = 0x1f1
	bootFlag     = 0xaa55
	headerMagic  = 0x53726448 // "HdrS"
	// version212 is the first protocol with the 64-bit entry point.
	version212       = 0x20c
	loadFlagHigh     = 1 << 0 // LOADED_HIGH
	xloadKernel64    = 1 << 0 // XLF_KERNEL_64
	loaderUndefined  = 0xff
	entry64Offset    = 0x200
	sector           = 512
	defaultAlignment = 0x1000000
)

// vmlinuxHeader is what a boot loader fills in for a kernel that has no setup
// header of its own.
func vmlinuxHeader() setupHeader {
	return setupHeader{
		BootFlag: bootFlag, Magic: headerMagic, Version: version212,
		LoadFlags: loadFlagHigh, KernelAlignment: defaultAlignment,
	}
}

func parseBzImage(r io.ReaderAt, size int64) (*Kernel, error) {
	if size < headerOffset+sector {
		return nil, fmt.Errorf("%w: %d bytes is too short", ErrNotKernel, size)
	}
	var h setupHeader
	if err := readStruct(r, size, headerOffset, &h); err != nil {
		return nil, err
	}
	switch {
	case h.BootFlag != bootFlag || h.Magic != headerMagic:
		return nil, fmt.Errorf("%w: neither an ELF file nor a bzImage", ErrNotKernel)
	case h.Version < version212 || h.XLoadFlags&xloadKernel64 == 0:
		return nil, fmt.Errorf("%w: boot protocol %d.%d without a 64-bit entry point",
			ErrNotKernel, h.Version>>8, h.Version&0xff)
	case h.LoadFlags&loadFlagHigh == 0:
		return nil, fmt.Errorf("%w: a zImage, which loads below 1 MiB", ErrNotKernel)
	}
	sects := int64(h.SetupSects)
	if sects == 0 {
		sects = 4 // boot.rst: for backwards compatibility
	}
	start := (sects + 1) * sector
	if size-start <= entry64Offset {
		return nil, fmt.Errorf("%w: %d bytes hold no kernel after %d of set-up code", ErrNotKernel, size, start)
	}
	return placeBzImage(h, start, uint64(size-start))
}

// placeBzImage decides where the protected-mode part, fileSize bytes at offset
// start in the file, goes: to its preferred address, where it need not move
// itself before it unpacks.
func placeBzImage(h setupHeader, start int64, fileSize uint64) (*Kernel, error) {
	gpa, need := h.PrefAddress, max(uint64(h.InitSize), fileSize)
	if gpa < uint64(lowMemoryEnd) || gpa%pageSize != 0 || gpa >= identityEnd || need > identityEnd-gpa {
		return nil, fmt.Errorf("%w: wants %d bytes at %#x, not between 1 MiB and 4 GiB", ErrNotKernel, need, gpa)
	}
	at := memory.GPA(gpa)
	return &Kernel{
		Format:     BzImage,
		Entry:      at + entry64Offset,
		segments:   []segment{{at, start, fileSize, need}},
		end:        at + memory.GPA(need),
		header:     h,
		maxCmdline: int(min(h.CmdlineSize, cmdlineRoom-1)),
		initrdMax:  memory.GPA(h.InitrdAddrMax),
	}, nil
}
