// Package lab runs a command on a machine whose KVM works: QEMU without
// acceleration, emulating a CPU that has AMD SVM, with a stock Debian cloud
// kernel in it that offers a real /dev/kvm.
//
// It is for hosts whose own KVM cannot boot a stock kernel (see Needed), and
// for measuring: with Options.Deterministic the machine counts instructions
// instead of time. It needs no root on the host.
//
// The command sees the builtin image as its root file system, and beside it
// what was carried in: the command itself with its interpreter and libraries,
// files and directories that its arguments name, and what Options.Carry asks
// for, each at its own absolute path. Carried files travel as EROFS images on
// virtio-blk disks, cached by what stat(2) says of the files. Regular files
// that are new or changed in carried directories and in the working directory
// come back when the command has ended; deletions, links and other kinds of
// files do not.
//
// The machine is one child process. It dies with duplex, however duplex ends
// (Pdeathsig), its streams are socket pairs without a name, and its files are
// in the cache or in the run directory that hostdir sweeps: kill -9 leaves
// nothing behind.
package lab
