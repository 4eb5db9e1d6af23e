// Package virtqtest is a mock virtio driver: it plays the guest, in the same
// process, so that devices are tested and fuzzed without KVM.
//
// Start brings a device up through its MMIO register file, as §3.1.1 of virtio
// 1.2 tells a driver to. Add makes a descriptor chain available, Kick notifies,
// Wait returns what the device used:
//
//	d := virtqtest.Start(t, dev)
//	in := d.In(512)
//	d.Ring(0).Add(d.Out(header), in, d.In(1))
//	d.Kick(0)
//	_, written := d.Ring(0).Wait()
//	data := d.Bytes(in)
//
// For attacks, SetDesc and Publish write descriptors and ring entries raw, and
// SetReg writes any register at any time. Attacks runs the known ones on a
// device, each as a subtest; Fuzz turns bytes into unknown ones. Every device's
// tests have both. For benchmarks, a Pump makes the same chains available without
// allocating.
package virtqtest
