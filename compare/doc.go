// Package compare runs one image in both isolations, many times, and says what
// each costs and what each isolates.
//
// Run does it all, in this order:
//
//	plan      which side runs when: shuffled pairs, from a seed   plan.go
//	probe     one run a side of the isolation probe               study.go
//	warm up   runs that are thrown away
//	sample    one fresh process a sample                          sample.go
//	summarise medians, differences, what failed                   summary.go
//
// and returns a Document, which is the --json output and all that the terminal
// table (report.go) is made from. docs/measuring.md says where each time starts
// and ends, and holds the schema.
//
// A sample is `duplex run --report-fd=3 --container ...` or `--vm`, started by this
// process: it stamps the start, the first byte of output and the end on its own
// clock, and reads the other stamps from the Report that the child writes. So
// both sides pay for the same things: a process start, the command line, the
// image look-up, the run, and the clean-up.
//
// To add a metric, add it to metrics in summary.go; nothing else knows their
// number.
package compare
