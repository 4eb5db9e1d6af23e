// Package iovec does vectored input and output on guest memory without a copy
// and without an allocation a call.
//
// A List is filled with the pieces of a descriptor chain, which package queue
// validated, and handed to the kernel as it is:
//
//	l.Set(chain.Writable, 0, n)
//	got, err := l.ReadAt(fd, offset, 0)
//
// The List keeps its storage from one request to the next. (x/sys/unix makes a
// new vector for every call.)
package iovec
