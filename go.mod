module github.com/duplex-run/duplex

go 1.26.0

require (
	github.com/klauspost/compress v1.20.3
	golang.org/x/sys v0.49.0
)

require github.com/spf13/pflag v1.0.10
