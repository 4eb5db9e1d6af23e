package fs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Operation codes (enum fuse_opcode).
const (
	opLookup        = 1
	opForget        = 2
	opGetattr       = 3
	opSetattr       = 4
	opReadlink      = 5
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opStatfs        = 17
	opRelease       = 18
	opFsync         = 20
	opSetxattr      = 21
	opGetxattr      = 22
	opListxattr     = 23
	opRemovexattr   = 24
	opFlush         = 25
	opInit          = 26
	opOpendir       = 27
	opReaddir       = 28
	opReleasedir    = 29
	opFsyncdir      = 30
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opBatchForget   = 42
	opFallocate     = 43
	opReaddirplus   = 44
	opRename2       = 45
	opLseek         = 46
	opCopyFileRange = 47
	opTmpfile       = 51
	opCount         = 64
)

// Flags of FUSE_INIT.
const (
	initAsyncRead       = 1 << 0
	initAtomicTrunc     = 1 << 3
	initBigWrites       = 1 << 5
	initAutoInvalData   = 1 << 12
	initReaddirplus     = 1 << 13
	initReaddirplusAuto = 1 << 14
	initAsyncDIO        = 1 << 15
	initParallelDirops  = 1 << 18
	initMaxPages        = 1 << 22
	initKillprivV2      = 1 << 28
)

// Bits of fuse_setattr_in.valid.
const (
	attrMode     = 1 << 0
	attrUID      = 1 << 1
	attrGID      = 1 << 2
	attrSize     = 1 << 3
	attrAtime    = 1 << 4
	attrMtime    = 1 << 5
	attrFH       = 1 << 6
	attrAtimeNow = 1 << 7
	attrMtimeNow = 1 << 8
	attrKillSuid = 1 << 11
)

const (
	openKillSuid  = 1 << 0 // fuse_open_in.open_flags
	writeKillSuid = 1 << 2 // fuse_write_in.write_flags
)

// Lengths of structures in bytes.
const (
	headerLen    = 40 // fuse_in_header
	replyLen     = 16 // fuse_out_header
	attrLen      = 88
	entryOutLen  = 40 + attrLen
	attrOutLen   = 16 + attrLen
	openOutLen   = 16
	createOutLen = entryOutLen + openOutLen
	initOutLen   = 64
	statfsOutLen = 80
	direntLen    = 24
	writeInLen   = 40
)

// The protocol's versions.
const (
	protoMajor    = 7
	protoMinor    = 38
	protoMinMinor = 31 // Linux 5.4, the first with virtio-fs
)

const rootID = 1

// validSeconds is how long the guest may trust a name or attributes.
const validSeconds = 1

var le = binary.LittleEndian

// header is the host's copy of struct fuse_in_header.
type header struct {
	len, opcode    uint32
	unique, nodeID uint64
	uid, gid       uint32
}

func parseHeader(p *[headerLen]byte) header {
	return header{
		len: le.Uint32(p[0:]), opcode: le.Uint32(p[4:]),
		unique: le.Uint64(p[8:]), nodeID: le.Uint64(p[16:]),
		uid: le.Uint32(p[24:]), gid: le.Uint32(p[28:]),
	}
}

// appendAttr appends struct fuse_attr.
func appendAttr(p []byte, st *unix.Stat_t) []byte {
	p = le.AppendUint64(p, st.Ino)
	p = le.AppendUint64(p, uint64(st.Size))
	p = le.AppendUint64(p, uint64(st.Blocks))
	p = le.AppendUint64(p, uint64(st.Atim.Sec))
	p = le.AppendUint64(p, uint64(st.Mtim.Sec))
	p = le.AppendUint64(p, uint64(st.Ctim.Sec))
	p = le.AppendUint32(p, uint32(st.Atim.Nsec))
	p = le.AppendUint32(p, uint32(st.Mtim.Nsec))
	p = le.AppendUint32(p, uint32(st.Ctim.Nsec))
	p = le.AppendUint32(p, st.Mode)
	p = le.AppendUint32(p, uint32(st.Nlink))
	p = le.AppendUint32(p, st.Uid)
	p = le.AppendUint32(p, st.Gid)
	p = le.AppendUint32(p, rdev(st.Rdev))
	p = le.AppendUint32(p, uint32(st.Blksize))
	return le.AppendUint32(p, 0) // flags
}

// rdev is a device number in the encoding of FUSE (new_encode_dev in Linux).
func rdev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// appendEntry appends struct fuse_entry_out; node id 0 means "not looked up".
func appendEntry(p []byte, id uint64, st *unix.Stat_t) []byte {
	p = le.AppendUint64(p, id)
	p = le.AppendUint64(p, 0) // generation: ids are not used again
	p = le.AppendUint64(p, validSeconds)
	p = le.AppendUint64(p, validSeconds)
	p = le.AppendUint64(p, 0) // nanoseconds of both
	return appendAttr(p, st)
}

// appendAttrOut appends struct fuse_attr_out.
func appendAttrOut(p []byte, st *unix.Stat_t) []byte {
	p = le.AppendUint64(p, validSeconds)
	p = le.AppendUint64(p, 0)
	return appendAttr(p, st)
}

// appendOpen appends struct fuse_open_out.
func appendOpen(p []byte, fh uint64) []byte {
	p = le.AppendUint64(p, fh)
	return le.AppendUint64(p, 0) // open_flags: the guest drops its cache at open
}
