package erofs

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"
)

// Superblock fields (struct erofs_super_block).
const (
	superOffset = 1024
	superMagic  = 0xE0F5E1E2
	// featureCompat is SB_CHKSUM | MTIME: kernels that know neither ignore them.
	featureCompat = 0x1 | 0x2
)

// Inode formats (i_format): bit 0 says extended, bits 1 to 3 the data layout.
const (
	formatPlain  = 1 | 0<<1 // EROFS_INODE_FLAT_PLAIN
	formatInline = 1 | 2<<1 // EROFS_INODE_FLAT_INLINE
)

// Stats describes a finished image.
type Stats struct {
	// Inodes in the image; a hard-linked file counts once.
	Inodes int
	// Size of the image in bytes, a multiple of 4096. The host's file may be
	// sparse and take less.
	Size int64
}

// Finish writes the metadata of the tree and the superblock. The identity (any
// text, such as a digest) becomes the image's UUID, so that equal input gives
// an equal file. The Nodes must not be used again.
func (w *Writer) Finish(root *Node, identity string) (Stats, error) {
	l, err := w.plan(root)
	if err != nil {
		return Stats{}, err
	}
	if w.small != nil {
		if err := w.small.out.Flush(); err != nil {
			return Stats{}, err
		}
	}
	for _, n := range l.order {
		if err := w.writeOwnBlocks(n); err != nil {
			return Stats{}, err
		}
	}
	metaStart := w.next
	total := uint64(metaStart) + (l.end+blockSize-1)/blockSize
	if total > maxBlocks {
		return Stats{}, tooManyBlocks()
	}
	out := bufio.NewWriterSize(io.NewOffsetWriter(w.out, int64(metaStart)*blockSize), bufferSize)
	if err := w.writeMeta(out, l); err != nil {
		return Stats{}, err
	}
	if err := out.Flush(); err != nil {
		return Stats{}, err
	}
	size := int64(total) * blockSize
	if err := w.out.Truncate(size); err != nil {
		return Stats{}, err
	}
	super := superblock(root, len(l.order), metaStart, uint32(total), identity)
	if _, err := w.out.WriteAt(super, superOffset); err != nil {
		return Stats{}, err
	}
	return Stats{Inodes: len(l.order), Size: size}, nil
}

// writeOwnBlocks writes the blocks that place reserved for packed contents.
func (w *Writer) writeOwnBlocks(n *Node) error {
	if !n.packed() || n.inline && n.size < blockSize {
		return nil
	}
	content, err := w.content(n)
	if err != nil {
		return err
	}
	if n.inline {
		content = content[:len(content)/blockSize*blockSize]
	}
	_, err = w.out.WriteAt(content, int64(n.block)*blockSize)
	return err
}

// content returns packed contents.
func (w *Writer) content(n *Node) ([]byte, error) {
	switch n.Type() {
	case unix.S_IFLNK:
		return []byte(n.Target), nil
	case unix.S_IFDIR:
		return n.dirents(), nil
	}
	p := make([]byte, n.size)
	_, err := w.small.file.ReadAt(p, n.Data.at)
	return p, err
}

// dirents returns a directory's blocks.
func (n *Node) dirents() []byte {
	out := make([]byte, 0, n.size)
	for at := 0; at < len(n.names); {
		end, used := at, 0
		for end < len(n.names) && used+direntSize+len(n.names[end]) <= blockSize {
			used += direntSize + len(n.names[end])
			end++
		}
		out = n.appendDirBlock(out, n.names[at:end])
		if at = end; at < len(n.names) {
			out = append(out, make([]byte, blockSize-used)...)
		}
	}
	return out
}

// appendDirBlock appends one directory block: the dirents (struct
// erofs_dirent), then the names they point to.
func (n *Node) appendDirBlock(out []byte, names []string) []byte {
	offset := direntSize * len(names)
	for _, name := range names {
		target := n.entry(name)
		out = binary.LittleEndian.AppendUint64(out, target.nid)
		out = binary.LittleEndian.AppendUint16(out, uint16(offset))
		out = append(out, fileType(target.Type()), 0)
		offset += len(name)
	}
	for _, name := range names {
		out = append(out, name...)
	}
	return out
}

func (n *Node) entry(name string) *Node {
	switch name {
	case ".":
		return n
	case "..":
		return n.parent
	}
	return n.Children[name]
}

// fileType is the value of a dirent for the type bits of a mode (FT_*).
func fileType(typ uint32) byte {
	switch typ {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	default:
		return 7 // S_IFLNK
	}
}

// writeMeta writes every inode with its xattrs and inline tail, and the gaps.
func (w *Writer) writeMeta(out *bufio.Writer, l *layout) error {
	var at uint64
	pad := func(to uint64) error {
		_, err := out.Write(zeroBlock[:to-at])
		at = to
		return err
	}
	for i, n := range l.order {
		if err := pad(n.nid * slotSize); err != nil {
			return err
		}
		record := append(n.encode(uint32(i+1)), n.xattrs...)
		if n.inline {
			content, err := w.content(n)
			if err != nil {
				return err
			}
			record = append(record, content[len(content)/blockSize*blockSize:]...)
		}
		if _, err := out.Write(record); err != nil {
			return err
		}
		at += uint64(len(record))
	}
	return nil
}

// encode returns the extended inode (struct erofs_inode_extended).
func (n *Node) encode(ino uint32) []byte {
	format, union := uint16(formatPlain), n.block
	if n.inline {
		format = formatInline
	}
	if t := n.Type(); t == unix.S_IFCHR || t == unix.S_IFBLK {
		// new_encode_dev: minor bits 0-7, major 12 bits, minor bits 8-19
		union = n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
	}
	var icount uint16
	if len(n.xattrs) > 0 {
		icount = uint16((len(n.xattrs)-12)/4 + 1)
	}
	b := make([]byte, 0, inodeSize)
	b = binary.LittleEndian.AppendUint16(b, format)
	b = binary.LittleEndian.AppendUint16(b, icount)
	b = binary.LittleEndian.AppendUint16(b, uint16(n.Mode))
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.size))
	b = binary.LittleEndian.AppendUint32(b, union)
	b = binary.LittleEndian.AppendUint32(b, ino)
	b = binary.LittleEndian.AppendUint32(b, n.UID)
	b = binary.LittleEndian.AppendUint32(b, n.GID)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.Sec))
	b = binary.LittleEndian.AppendUint32(b, n.Nsec)
	b = binary.LittleEndian.AppendUint32(b, n.nlink)
	return append(b, make([]byte, 16)...)
}

// superblock returns the rest of block 0 from superOffset on: the superblock is
// 128 bytes, its checksum covers all of it.
func superblock(root *Node, inodes int, meta, total uint32, identity string) []byte {
	b := make([]byte, blockSize-superOffset)
	le := binary.LittleEndian
	le.PutUint32(b[0:], superMagic)
	le.PutUint32(b[8:], featureCompat)
	b[12] = 12 // log2 of the block size
	le.PutUint16(b[14:], uint16(root.nid))
	le.PutUint64(b[16:], uint64(inodes))
	le.PutUint64(b[24:], uint64(root.Sec)) // build time
	le.PutUint32(b[32:], root.Nsec)
	le.PutUint32(b[36:], total)
	le.PutUint32(b[40:], meta)
	uuid := sha256.Sum256([]byte(identity))
	copy(b[48:64], uuid[:16])
	copy(b[64:80], "duplex")
	// crc32c seeded with all ones and, unlike Go's, not inverted at the end
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
