// Package kernel finds, fetches and reads guest kernels.
//
// Fetch downloads the distribution's cloud kernel with the distribution's own
// client (apt-get, which checks it against the signed package lists) and unpacks
// it, without installing it, to cache/kernels/NAME/{vmlinuz,config,modules}. Find
// turns what a user typed for --kernel into a Kernel, and on that Vmlinux takes the
// uncompressed ELF kernel out of a bzImage and Modules answers which modules to
// load, in which order. Inspect says what a kernel is and what it lacks. Package
// build, below this one, makes kernels from source: FindSource gets it, Install
// puts what was built to the fetched ones.
//
//	k, err := kernel.Find("")             // the newest fetched one
//	vmlinux, err := k.Vmlinux(ctx)        // 19 µs when cached, 0.1 s when not
//	order, err := k.Modules("erofs")      // libcrc32c, erofs
//
// The files, from the outside in: fetch.go, apt.go and unpack.go fetch; source.go
// fetches source and install.go installs; kernel.go finds; identify.go, bzimage.go, payload.go and vmlinux.go read images; modinfo.go
// and modules.go modules; config.go, options.go and inspect.go inspect.
//
// The order of modules comes from the .modinfo sections of the modules
// themselves: the package is not installed, so depmod has not run and there is
// no modules.dep.
//
// Everything that reads a file assumes that the file lies: sizes are checked
// against what is there, and the output of a decompressor is bounded.
package kernel
