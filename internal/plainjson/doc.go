// Package plainjson reads and writes what is plain in JSON, in a short program.
//
// To read one value, package json of the standard library prepares to write every
// type that can be reached from it, which takes a process that starts a container
// longer than anything else it does by itself (docs/start-time.md). This package
// prepares nothing but lists of the fields of those structs that it meets.
//
// It knows a subset, and says so when it meets anything else: then the caller turns
// to package json, which decides, and has the words for what is wrong. What this
// package accepts means what package json makes of it; fuzz tests compare the two.
package plainjson
