// Package fork starts processes in namespaces that exist already, for both
// container runners.
package fork
