package cmdline

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseSignal takes a number or a name, with or without SIG.
func ParseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("signal %d is out of range", n)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for _, r := range []struct {
		prefix     string
		base, sign int
	}{{"RTMIN+", 34, 1}, {"RTMAX-", 64, -1}} {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, r.prefix)); err == nil && strings.HasPrefix(name, r.prefix) && n >= 0 && n <= 30 {
			return unix.Signal(r.base + r.sign*n), nil
		}
	}
	switch name {
	case "RTMIN":
		return 34, nil
	case "RTMAX":
		return 64, nil
	}
	return 0, fmt.Errorf("signal %q is not known", s)
}
