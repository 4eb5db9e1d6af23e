// Package state is a paused virtual machine as plain data, without its memory, and
// its encoding.
//
//	vmm.VM.Save    -> *Machine -> Encode -> bytes
//	vmm.Restore    <- *Machine <- Decode <- bytes
//
// The encoding is little-endian and has no names, tags or padding: a magic, a
// version, and the fields of Machine in their order. Lists and byte strings have
// their length (uint32) before them; what KVM has in structures of a fixed size is
// written without the zeros at its end. Any change of a field is another Version,
// and there is no conversion: a snapshot is made again in seconds.
//
// Decode trusts nothing: lengths are checked against what is there and against
// the bounds in this package before anything is allocated, and bytes that are left
// over are an error. What the numbers mean is checked by who takes them: the
// devices their own state, KVM its structures.
package state
