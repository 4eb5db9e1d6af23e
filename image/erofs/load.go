package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// ErrFormat reports bytes that are not an image as this package writes them.
var ErrFormat = errors.New("not an image of this writer")

// maxDepth bounds the nesting of directories that Load follows; Linux paths
// have at most 4096 bytes.
const maxDepth = 2048

// Load reads the tree of an image that this package wrote, such as to unpack
// it. Names of one file share a Node. Contents are read with Node.Open.
func Load(image io.ReaderAt) (*Node, error) {
	super := make([]byte, 128)
	if _, err := image.ReadAt(super, superOffset); err != nil {
		return nil, fmt.Errorf("superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint32(super) != superMagic || super[12] != 12 || le.Uint32(super[80:]) != 0 {
		return nil, fmt.Errorf("superblock: %w", ErrFormat)
	}
	l := &loader{
		image: image,
		meta:  int64(le.Uint32(super[40:])) * blockSize,
		end:   int64(le.Uint32(super[36:])) * blockSize,
		left:  le.Uint64(super[16:]),
		nodes: map[uint64]*Node{},
	}
	root, err := l.node(uint64(le.Uint16(super[14:])), 0)
	if err == nil && !root.IsDir() {
		err = ErrFormat
	}
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return root, nil
}

type loader struct {
	image     io.ReaderAt
	meta, end int64
	left      uint64 // inodes the superblock promises and that are yet to come
	nodes     map[uint64]*Node
}

// record is an inode's place, beside what becomes its Node.
type record struct {
	inline bool
	size   int64
	block  uint32
	tail   int64 // where the inline tail is
}

// node reads the inode nid, and below it if it is a directory, once.
func (l *loader) node(nid uint64, depth int) (*Node, error) {
	if n := l.nodes[nid]; n != nil {
		if n.IsDir() {
			return nil, fmt.Errorf("inode %d: a directory with two names: %w", nid, ErrFormat)
		}
		return n, nil
	}
	if l.left == 0 || depth > maxDepth || nid > uint64(l.end)/slotSize {
		return nil, fmt.Errorf("inode %d: %w", nid, ErrFormat)
	}
	l.left--
	n, rec, err := l.inode(nid)
	if err == nil {
		l.nodes[nid] = n
		err = l.body(n, rec, depth)
	}
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", nid, err)
	}
	return n, nil
}

func (l *loader) inode(nid uint64) (*Node, *record, error) {
	le := binary.LittleEndian
	at := l.meta + int64(nid)*slotSize
	b := make([]byte, inodeSize)
	if _, err := l.image.ReadAt(b, at); err != nil {
		return nil, nil, err
	}
	format := le.Uint16(b)
	if format != formatPlain && format != formatInline {
		return nil, nil, ErrFormat
	}
	n := &Node{
		Mode: uint32(le.Uint16(b[4:])), UID: le.Uint32(b[24:]), GID: le.Uint32(b[28:]),
		Sec: int64(le.Uint64(b[32:])), Nsec: le.Uint32(b[40:]),
	}
	rec := &record{
		inline: format == formatInline,
		size:   int64(le.Uint64(b[8:])), block: le.Uint32(b[16:]),
	}
	at += inodeSize
	if icount := int(le.Uint16(b[2:])); icount > 0 {
		body := make([]byte, 12+(icount-1)*4)
		if _, err := l.image.ReadAt(body, at); err != nil {
			return nil, nil, err
		}
		var err error
		if n.Xattrs, err = decodeXattrs(body); err != nil {
			return nil, nil, err
		}
		at += int64(len(body))
	}
	rec.tail = at
	isDevice := n.Type() == unix.S_IFCHR || n.Type() == unix.S_IFBLK
	if start := int64(rec.block) * blockSize; !isDevice && (rec.size < 0 || rec.size > l.end-start) {
		return nil, nil, ErrFormat
	}
	return n, rec, nil
}

// body fills in what depends on the type.
func (l *loader) body(n *Node, rec *record, depth int) error {
	switch n.Type() {
	case unix.S_IFREG:
		n.Data = Data{at: int64(rec.block) * blockSize, size: rec.size}
		if rec.inline {
			if rec.size > maxSmall {
				return ErrFormat
			}
			n.Data.at = rec.tail
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Major = rec.block >> 8 & 0xfff
		n.Minor = rec.block&0xff | rec.block>>12&^0xff
	case unix.S_IFLNK:
		if rec.size > maxTarget {
			return ErrFormat
		}
		target, err := l.content(rec)
		n.Target = string(target)
		return err
	case unix.S_IFDIR:
		content, err := l.content(rec)
		if err != nil {
			return err
		}
		n.Children = map[string]*Node{}
		for len(content) > 0 {
			block := content[:min(blockSize, len(content))]
			content = content[len(block):]
			if err := l.dirBlock(n, block, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// content reads a directory or a link.
func (l *loader) content(rec *record) ([]byte, error) {
	whole := rec.size
	if rec.inline {
		whole = rec.size / blockSize * blockSize
	}
	out := make([]byte, rec.size)
	if _, err := l.image.ReadAt(out[:whole], int64(rec.block)*blockSize); err != nil {
		return nil, err
	}
	_, err := l.image.ReadAt(out[whole:], rec.tail)
	return out, err
}

// dirBlock adds the entries of one directory block to n.
func (l *loader) dirBlock(n *Node, block []byte, depth int) error {
	le := binary.LittleEndian
	if len(block) < direntSize {
		return ErrFormat
	}
	first := int(le.Uint16(block[8:]))
	if first%direntSize != 0 || first == 0 || first > len(block) {
		return ErrFormat
	}
	for at := 0; at < first; at += direntSize {
		start, end := int(le.Uint16(block[at+8:])), len(block)
		if at+direntSize < first {
			end = int(le.Uint16(block[at+direntSize+8:]))
		}
		if start > end || end > len(block) {
			return ErrFormat
		}
		name := string(bytes.TrimRight(block[start:end], "\x00"))
		if name == "." || name == ".." {
			continue
		}
		if err := checkName(name); err != nil {
			return err
		}
		if n.Children[name] != nil {
			return ErrFormat
		}
		child, err := l.node(le.Uint64(block[at:]), depth+1)
		if err != nil {
			return err
		}
		n.Children[name] = child
	}
	return nil
}

// decodeXattrs is the reverse of encodeXattrs.
func decodeXattrs(body []byte) (map[string]string, error) {
	attrs := map[string]string{}
	for rest := body[12:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, ErrFormat
		}
		nameLen, index := int(rest[0]), rest[1]
		total := 4 + nameLen + int(binary.LittleEndian.Uint16(rest[2:]))
		if total > len(rest) {
			return nil, ErrFormat
		}
		prefix := ""
		for _, p := range xattrPrefixes {
			if p.index == index {
				prefix = p.prefix
			}
		}
		if prefix == "" {
			return nil, ErrFormat
		}
		attrs[prefix+string(rest[4:4+nameLen])] = string(rest[4+nameLen : total])
		rest = rest[min(len(rest), (total+3)/4*4):]
	}
	return attrs, nil
}

// Open returns the contents of a regular file of a loaded image.
func (n *Node) Open(image io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(image, n.Data.at, n.Data.size)
}
