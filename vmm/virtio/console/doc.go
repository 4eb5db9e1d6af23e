// Package console is a virtio console device (virtio 1.2 §5.3) with one port,
// which Linux calls hvc0.
//
//	d := console.New(console.Options{In: os.Stdin, Out: os.Stdout, Cols: 80, Rows: 24})
//
// What the guest prints is copied to a buffer of BufferSize bytes, and from
// there a goroutine writes it to Out. While the buffer is full the guest gets
// its own buffers not back, so it waits and nothing is lost; a blocked Out
// blocks neither the guest's vCPUs nor Reset or Close. Another goroutine reads
// In, InputSize bytes at most ahead of what the guest takes.
//
// Both goroutines belong to the device, not to an activation: what was buffered
// at a reset still reaches Out, and what the guest did not read, the next driver.
package console
