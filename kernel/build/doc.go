// Package build makes guest kernels from the kernel's source.
//
//	k, err := build.Build(ctx, build.Options{Minimal: true}, progress)
//
// Build takes the distribution's source package (or a directory, or a tarball),
// lets `make allnoconfig` say no to everything that the fragments of kernel/configs
// and the user's do not name (KCONFIG_ALLCONFIG), checks that every option of them has
// got its value, and builds out of tree. What it makes goes into the cache of package
// kernel, where `kernel ls` and --kernel find it.
//
// The files: build.go is the sequence; fragment.go reads fragments and compares
// them with what the kernel made of them, explain.go says why an option was
// dropped; tools.go finds what is not installed; source.go and tree.go the source;
// key.go the name of the result; make.go runs make; cache.go says when the cache is
// no place to build in.
//
// A kernel is named after a hash of everything that decides on its bytes: source,
// options, compiler, linker, and the version of this package's own steps. What there
// is already is not built again. Times, user, host and paths are kept out of the
// kernel, so the same inputs give the same bytes.
//
// Everything happens in one directory of the cache for each kernel, under a lock: a
// second build of the same waits, one of another kernel does not. Make and all it starts are one process group, which is killed when the
// context ends, and they hold the lock too: when duplex is killed and make is
// not, the next build waits for it. A build that fails leaves its log; what one that
// was killed leaves, the next removes.
package build
