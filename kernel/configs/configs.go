// Package configs holds the fragments of kernel configuration that `duplex kernel
// build` applies to `make allnoconfig`: what a guest kernel of the microVM is made
// of, each option with its reason on the line above it.
//
// minimal.config reaches a workload and no more, for the quickest boot.
// default.config is what real workloads (nginx, PostgreSQL, a JVM, a container
// runtime) need beyond that; it is applied after minimal.config, and where both name
// an option it wins. Both build everything in: no modules. They are plain fragments:
// make KCONFIG_ALLCONFIG=FILE allnoconfig takes them, too.
package configs

import _ "embed" // for the fragments

//go:embed minimal.config
var minimal string

//go:embed default.config
var standard string

// Minimal returns minimal.config.
func Minimal() string { return minimal }

// Default returns default.config.
func Default() string { return standard }
