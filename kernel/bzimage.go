package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Offsets in a bzImage of the fields of the real-mode header, from
// Documentation/arch/x86/boot.rst of the kernel, "The Real-Mode Kernel Header".
const (
	offSetupSects    = 0x1f1
	offBootFlag      = 0x1fe
	offMagic         = 0x202
	offProtocol      = 0x206
	offKernelVersion = 0x20e
	offXLoadFlags    = 0x236
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x268

	bootFlag        = 0xaa55
	magicHdrS       = "HdrS"
	protocolPayload = 0x208  // payload_offset and payload_length
	protocolXLoad   = 0x20c  // xloadflags
	xlfKernel64     = 1 << 0 // 64-bit entry point at 0x200
	sectorSize      = 512
)

// maxImage bounds the size of a kernel image, compressed or not: far above any
// kernel built so far (a debug vmlinux is about 500 MiB).
const maxImage = 1 << 30

// bzImage is what the header of a bzImage says, checked against its size.
type bzImage struct {
	protocol uint16 // boot protocol version, 0x020f is 2.15
	version  string // "6.1.0-56-cloud-amd64 (builder@host) #1 SMP ..."
	entry64  bool   // XLF_KERNEL_64
	start    int64  // file offset of the protected-mode code
	payload  int64  // file offset of the compressed kernel
	length   int64  // of the compressed kernel, with its size field
}

// errNotBzImage reports a file without the "HdrS" magic.
var errNotBzImage = errors.New("not a bzImage: no \"HdrS\" at offset 0x202")

// parseBzImage reads the header of the bzImage r of size bytes.
func parseBzImage(r io.ReaderAt, size int64) (*bzImage, error) {
	head := make([]byte, headerEnd)
	if n, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read header: %w", err)
	} else if n < headerEnd {
		return nil, errNotBzImage
	}
	le := binary.LittleEndian
	if string(head[offMagic:offMagic+4]) != magicHdrS || le.Uint16(head[offBootFlag:]) != bootFlag {
		return nil, errNotBzImage
	}
	if size > maxImage {
		return nil, fmt.Errorf("%d bytes is more than a kernel can have (%d)", size, maxImage)
	}
	img := &bzImage{protocol: le.Uint16(head[offProtocol:])}
	if img.protocol < protocolPayload {
		return nil, fmt.Errorf("boot protocol %d.%02d is older than 2.08 (Linux 2.6.26)", img.protocol>>8, img.protocol&0xff)
	}
	img.entry64 = img.protocol >= protocolXLoad && le.Uint16(head[offXLoadFlags:])&xlfKernel64 != 0
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4 // "for backwards compatibility"
	}
	img.start = (sects + 1) * sectorSize
	if err := img.setVersion(r, int64(le.Uint16(head[offKernelVersion:])), size); err != nil {
		return nil, err
	}
	img.payload = img.start + int64(le.Uint32(head[offPayloadOffset:]))
	img.length = int64(le.Uint32(head[offPayloadLength:]))
	if img.length == 0 || img.payload+img.length > size {
		return nil, fmt.Errorf("truncated: the compressed kernel is %d bytes at offset %d, the file has %d", img.length, img.payload, size)
	}
	return img, nil
}

// setVersion reads the string that kernel_version points to, offset by 0x200.
func (img *bzImage) setVersion(r io.ReaderAt, ptr, size int64) error {
	if ptr == 0 {
		return nil
	}
	at := ptr + 0x200
	if at >= img.start || at >= size {
		return fmt.Errorf("version string at offset %d is outside the setup code (%d bytes)", at, img.start)
	}
	buf := make([]byte, min(512, img.start-at, size-at))
	if _, err := r.ReadAt(buf, at); err != nil {
		return fmt.Errorf("read version: %w", err)
	}
	buf, _, ok := bytes.Cut(buf, []byte{0})
	if !ok || !printable(buf) {
		return errors.New("the version string is not text")
	}
	img.version = string(buf)
	return nil
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
