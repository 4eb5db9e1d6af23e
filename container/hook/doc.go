// Package hook runs the hooks of an OCI container (runtime-spec, config.md,
// "POSIX-platform Hooks"), in the runtime's namespaces and in the container's.
package hook
