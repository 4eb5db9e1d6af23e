package vmmbench

import "time"

// Suite is a device that is measured.
type Suite string

// The suites.
const (
	Blk Suite = "blk"
	Net Suite = "net"
	FS  Suite = "fs"
)

// Suites in the order they run.
var Suites = []Suite{Blk, Net, FS}

// Unit is what a benchmark's rate counts.
type Unit string

// The units.
const (
	PerSecond Unit = "/s"   // operations a second
	MBytes    Unit = "MB/s" // 10^6 bytes a second
)

// Benchmark is one row of the table.
type Benchmark struct {
	Name   string
	Suite  Suite
	Unit   Unit
	Title  string
	Target float64 // least ratio to the other monitor; 0 for none
}

// Benchmarks in the order of the table.
var Benchmarks = []Benchmark{
	{"blk.read4k", Blk, PerSecond, "4 KiB random reads, one at a time", 1},
	{"blk.read4k16", Blk, PerSecond, "4 KiB random reads, 16 threads", 1},
	{"blk.read1m", Blk, MBytes, "1 MiB sequential reads", 1},
	{"blk.fsync", Blk, PerSecond, "4 KiB writes, each with fsync", 1},
	{"net.rr", Net, PerSecond, "TCP round trips of 64 bytes", 0.9},
	{"net.send", Net, MBytes, "TCP stream from the guest, 64 KiB writes", 0.9},
	{"net.recv", Net, MBytes, "TCP stream to the guest, 64 KiB writes", 0.9},
	{"fs.walk", FS, PerSecond, "walk of a tree, readdir and lstat of each file", 1},
	{"fs.read", FS, MBytes, "read of a file of 32 MiB, 1 MiB a call", 1},
}

// Idle is a benchmark that does nothing: what the counters show for it is what
// the lines cost, and is taken off those of the others.
const Idle = "idle"

// Settle is how long a guest waits before and after each benchmark, for the
// counters of its monitor to be read.
const Settle = 100 * time.Millisecond

// What guest and driver have to agree on.
const (
	// SuitesKey on the kernel command line: the suites to run, with commas.
	SuitesKey = "bench.suites"
	// ShareTag is the tag of the shared directory, with a tree below ShareTree
	// and a file ShareFile of ShareFileSize bytes.
	ShareTag      = "bench"
	ShareTree     = "tree"
	ShareFile     = "file"
	ShareFileSize = 32 << 20
	ShareDirs     = 50 // directories below ShareTree
	ShareFiles    = 40 // files in each

	// DiskSize is that of the disk, in bytes. It holds no zeroes.
	DiskSize = 32 << 20

	HostIP, GuestIP = "10.111.0.1", "10.111.0.2"
	NetPort         = "7070"
)

// A TCP connection of the net suite starts with a byte that says what the host
// does: it answers each RoundTrip bytes with as many, it reads StreamSize bytes
// and sends one, or it sends StreamSize bytes in writes of StreamWrite.
const (
	NetEcho   = 'e'
	NetSink   = 's'
	NetSource = 'd'

	RoundTrip   = 64
	StreamWrite = 64 << 10
	StreamSize  = 64 << 20
)
