// Package procstat reads what processes use from /proc.
package procstat
