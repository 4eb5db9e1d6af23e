package main

import (
	"errors"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/internal/vmmbench"
)

const (
	diskPath = "/dev/vda"
	block    = 4096
	large    = 1 << 20

	reads       = 1000 // one after the other
	busyThreads = 16
	busyReads   = 100 // of each thread
	largeReads  = 2 * vmmbench.DiskSize / large
	syncs       = 250
	warm        = 64
)

// blkSuite reads and writes the disk past the guest's page cache.
func blkSuite() error {
	fd, err := unix.Open(diskPath, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	buf, err := unix.Mmap(-1, 0, large, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	err = errors.Join(readRandom(fd, buf[:block], warm, 1), readAll(fd, buf, warm/8))
	if err != nil {
		return err
	}
	return errors.Join(
		measure("blk.read4k", func() (int64, int64, error) {
			return reads, reads * block, readRandom(fd, buf[:block], reads, 2)
		}),
		measure("blk.read4k16", func() (int64, int64, error) {
			return busyThreads * busyReads, busyThreads * busyReads * block, readBusy(fd, buf)
		}),
		measure("blk.read1m", func() (int64, int64, error) {
			return largeReads, largeReads * large, readAll(fd, buf, largeReads)
		}),
		measure("blk.fsync", func() (int64, int64, error) {
			return syncs, syncs * block, writeSync(fd, buf[:block], syncs)
		}),
	)
}

// readRandom reads n blocks at places that depend on seed alone.
func readRandom(fd int, buf []byte, n int, seed uint64) error {
	r := rand.New(rand.NewPCG(seed, 0))
	for range n {
		if err := full(unix.Pread(fd, buf, r.Int64N(vmmbench.DiskSize/block)*block)); err != nil {
			return err
		}
	}
	return nil
}

func readBusy(fd int, buf []byte) error {
	var all sync.WaitGroup
	errs := make([]error, busyThreads)
	for i := range busyThreads {
		all.Go(func() { errs[i] = readRandom(fd, buf[i*block:][:block], busyReads, uint64(10+i)) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func readAll(fd int, buf []byte, n int64) error {
	for i := range n {
		if err := full(unix.Pread(fd, buf, i*large%vmmbench.DiskSize)); err != nil {
			return err
		}
	}
	return nil
}

func writeSync(fd int, buf []byte, n int) error {
	r := rand.New(rand.NewPCG(3, 0))
	for i := range buf {
		buf[i] = byte(i | 1)
	}
	for range n {
		if err := full(unix.Pwrite(fd, buf, r.Int64N(vmmbench.DiskSize/block)*block)); err != nil {
			return err
		}
		if err := unix.Fsync(fd); err != nil {
			return err
		}
	}
	return nil
}

// full takes what a read or write returned; both move at least a block here.
func full(n int, err error) error {
	if err == nil && (n == 0 || n%block != 0) {
		err = errors.New("moved less than a block")
	}
	return err
}
