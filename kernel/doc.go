// Package kernel finds, fetches and reads guest kernels.
//
// Fetch downloads the distribution's cloud kernel with the distribution's own
// client (apt-get, which checks it against the signed package lists) and unpacks
// it, without installing it, to cache/kernels/NAME/{vmlinuz,config,modules}. Find
// turns what a user typed for --kernel into a Kernel; ReadVmlinux takes the
// uncompressed ELF kernel out of a bzImage; Modules answers which modules to
// load, and in which order; Inspect says what a file is and what it lacks.
//
// The order of modules comes from the .modinfo sections of the modules
// themselves: the package is not installed, so depmod has not run and there is
// no modules.dep.
//
// Everything that reads a file assumes that the file lies: sizes are checked
// against what is there, and the output of a decompressor is bounded.
package kernel
