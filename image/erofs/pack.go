package erofs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Source is a file or directory of the host that goes into an image.
type Source struct {
	// Path on the host. A symbolic link is stored as a link, not followed.
	Path string
	// At is the absolute path in the image, "/" for a directory that becomes
	// the root. Directories above it are made like the host's directories
	// above Path where the names agree, else with mode 0755 and owner 0:0.
	At string
}

// ErrChanged reports a file that was modified while it was being packed.
var ErrChanged = errors.New("changed while it was read")

// Scan is the metadata of a set of host files, read without their contents.
type Scan struct {
	root  *Node
	files []hostFile
	links map[inodeKey]*Node
	hash  hash.Hash
	line  []byte // reused by note
}

type hostFile struct {
	node *Node
	path string
	stat unix.Stat_t
}

type inodeKey struct{ dev, ino uint64 }

// ScanFiles reads the metadata of the sources and everything below them. Mount
// points are entered, but not those of /proc, /sys and the like, which hold no
// files and have no end: they become empty directories. A later source replaces
// what an earlier one put at the same path.
func ScanFiles(ctx context.Context, sources ...Source) (*Scan, error) {
	s := &Scan{
		root:  newDir(),
		links: make(map[inodeKey]*Node),
		hash:  sha256.New(),
	}
	for _, src := range sources {
		if err := s.source(ctx, src); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Fingerprint is a sha256 in hex over every file's path, type, mode, owner,
// size, link target, xattrs, device, inode number, modification and change
// time. Equal fingerprints mean equal contents, as far as the change time
// tells: a write within the kernel's clock tick (4 ms on most hosts before
// Linux 6.13) after the scan that leaves the size as it was goes unseen.
func (s *Scan) Fingerprint() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// Write packs what was scanned into out, a new and empty file. It fails with
// ErrChanged when a file is not what it was at the scan.
func (s *Scan) Write(ctx context.Context, out *os.File) (Stats, error) {
	w := NewWriter(out)
	defer w.Close()
	for _, f := range s.files {
		if err := ctx.Err(); err != nil {
			return Stats{}, err
		}
		if err := f.addTo(ctx, w); err != nil {
			return Stats{}, err
		}
	}
	return w.Finish(s.root, s.Fingerprint())
}

// Pack scans the sources and writes them into out, a new and empty file.
func Pack(ctx context.Context, out *os.File, sources ...Source) (Stats, error) {
	s, err := ScanFiles(ctx, sources...)
	if err != nil {
		return Stats{}, fmt.Errorf("pack: %w", err)
	}
	stats, err := s.Write(ctx, out)
	if err != nil {
		return Stats{}, fmt.Errorf("pack: %w", err)
	}
	return stats, nil
}

func newDir() *Node {
	return &Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*Node{}}
}

func (s *Scan) source(ctx context.Context, src Source) error {
	if !path.IsAbs(src.At) {
		return fmt.Errorf("%s: place %q in the image is not absolute", src.Path, src.At)
	}
	node, err := s.walk(ctx, src.Path, path.Clean(src.At))
	if err != nil {
		return err
	}
	if path.Clean(src.At) == "/" {
		if !node.IsDir() {
			return fmt.Errorf("%s: %w", src.Path, unix.ENOTDIR)
		}
		s.root = node
		return nil
	}
	names := strings.Split(path.Clean(src.At)[1:], "/")
	dir, sameNames := s.root, path.Clean(src.At) == filepath.Clean(src.Path)
	for i, name := range names[:len(names)-1] {
		next := dir.Children[name]
		if next == nil {
			next = newDir()
			if sameNames {
				if err := next.likeHost("/" + strings.Join(names[:i+1], "/")); err != nil {
					return err
				}
			}
			dir.Children[name] = next
		}
		if !next.IsDir() {
			return fmt.Errorf("%s: %w", path.Join("/", path.Join(names[:i+1]...)), unix.ENOTDIR)
		}
		dir = next
	}
	dir.Children[names[len(names)-1]] = node
	return nil
}

// likeHost gives a directory above a source the host's mode, owner and time.
func (n *Node) likeHost(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.Mode, n.UID, n.GID = st.Mode, st.Uid, st.Gid
		n.Sec, n.Nsec = st.Mtim.Sec, uint32(st.Mtim.Nsec)
	}
	return nil
}

// walk returns the Node of the host file at hostPath, which is called name in
// the image, with everything below it.
func (s *Scan) walk(ctx context.Context, hostPath, name string) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(hostPath, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: hostPath, Err: err}
	}
	key := inodeKey{st.Dev, st.Ino}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if known := s.links[key]; known != nil && !isDir {
		s.note(name, known, &st)
		return known, nil
	}
	n := &Node{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid,
		Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec),
	}
	switch n.Type() {
	case unix.S_IFREG:
		s.files = append(s.files, hostFile{n, hostPath, st})
	case unix.S_IFLNK:
		target, err := os.Readlink(hostPath)
		if err != nil {
			return nil, err
		}
		n.Target = target
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Major, n.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	}
	var err error
	if n.Xattrs, err = hostXattrs(hostPath); err != nil {
		return nil, err
	}
	s.note(name, n, &st)
	if st.Nlink > 1 && !isDir {
		s.links[key] = n
	}
	if isDir {
		err = s.walkDir(ctx, n, hostPath, name)
	}
	return n, err
}

func (s *Scan) walkDir(ctx context.Context, n *Node, hostPath, name string) error {
	n.Children = map[string]*Node{}
	if kernelsOwn(hostPath) {
		return nil
	}
	entries, err := os.ReadDir(hostPath) // sorted
	if err != nil {
		return err
	}
	for _, e := range entries {
		child, err := s.walk(ctx, filepath.Join(hostPath, e.Name()), path.Join(name, e.Name()))
		if err != nil {
			return err
		}
		n.Children[e.Name()] = child
	}
	return nil
}

// kernelsOwn reports whether dir is on a file system by which the kernel talks
// to programs, instead of keeping their files.
func kernelsOwn(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false // reading the directory will say why
	}
	switch st.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC:
		return true
	}
	return false
}

// note adds a file to the fingerprint: its strings with their lengths, its
// numbers as 8 bytes each.
func (s *Scan) note(name string, n *Node, st *unix.Stat_t) {
	b := appendString(s.line[:0], name)
	for _, v := range [...]uint64{
		uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Size), st.Dev, st.Ino, st.Rdev,
		uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec),
		uint64(len(n.Xattrs)),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = appendString(b, n.Target)
	for _, k := range slices.Sorted(maps.Keys(n.Xattrs)) {
		b = appendString(appendString(b, k), n.Xattrs[k])
	}
	s.line = b
	s.hash.Write(b) // never fails
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// hostXattrs reads the attributes EROFS can hold; others are left behind, and
// so are overlayfs's own, which mean nothing outside the host's overlay.
func hostXattrs(hostPath string) (map[string]string, error) {
	size, err := unix.Llistxattr(hostPath, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: hostPath, Err: err}
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(hostPath, list); err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: hostPath, Err: err}
	}
	attrs := map[string]string{}
	value := make([]byte, maxXattrBody)
	for _, name := range strings.Split(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if !KnownXattr(name) || IsOverlayXattr(name) {
			continue
		}
		length, err := unix.Lgetxattr(hostPath, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr " + name, Path: hostPath, Err: err}
		}
		attrs[name] = string(value[:length])
	}
	return attrs, nil
}

// IsOverlayXattr reports whether name is one overlayfs steers itself by. In an
// image it would change what an overlay mount of the image shows, so images do
// not carry it.
func IsOverlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// addTo copies the file's contents into the image.
func (f hostFile) addTo(ctx context.Context, w *Writer) error {
	if f.stat.Size == 0 {
		return f.unchanged(nil)
	}
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if f.node.Data, err = w.addFile(ctx, file, f.stat.Size); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return f.unchanged(file)
}

// unchanged compares the file (opened, or by its path) with the scan.
func (f hostFile) unchanged(file *os.File) error {
	var st unix.Stat_t
	var err error
	if file != nil {
		err = unix.Fstat(int(file.Fd()), &st)
	} else {
		err = unix.Lstat(f.path, &st)
	}
	if err == nil && (st.Dev != f.stat.Dev || st.Ino != f.stat.Ino || st.Size != f.stat.Size ||
		st.Mtim != f.stat.Mtim || st.Ctim != f.stat.Ctim) {
		err = ErrChanged
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}
