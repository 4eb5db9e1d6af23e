// Package inside is what runs in a container before the workload does: init,
// its PID 1 (init.go), which builds the root file system (rootfs.go, lower.go,
// dev.go), and the process that becomes the workload (exec.go).
//
// Both are small on purpose. They start twice for every run, so every package
// that is linked here costs each run time: container/init, the program made of
// this package, starts in a third of the time that the whole of duplex does.
//
// Everything is mounted by file descriptor in the container's own mount
// namespace, and no symbolic link of the image is followed on the way. Each step
// has a name, and a step that fails comes back to duplex as "name: why".
package inside
