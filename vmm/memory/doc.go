// Package memory is the guest's physical memory: the one place where an address
// that came from the guest becomes a piece of host memory.
//
// A Memory is a short list of regions, each a guest physical address (GPA) and
// the host bytes that back it. New lays them out as a PC does, with a hole below
// 4 GiB for memory-mapped devices, on anonymous memory that costs nothing until
// the guest touches it. FromRegions takes plain byte slices, so that devices and
// parsers are tested and fuzzed without KVM.
//
// Every access is checked for overflow and bounds by find, and nowhere else.
// Nothing here panics, whatever the guest says: a bad address is an *Error that
// wraps ErrOutOfRange or ErrMisaligned. An access never spans two regions, so it
// never runs across the hole.
//
// Guest memory is shared with running vCPUs: bytes read twice may differ. Code
// that checks a value must check the copy it uses. LoadUint16 and StoreUint16
// order ring indices as virtio 1.2 section 2.7.13 asks; the plain accessors
// promise no order between themselves.
package memory
