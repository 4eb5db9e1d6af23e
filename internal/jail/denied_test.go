package jail

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"
)

// A monitor that was taken over writes what it likes into its report: it is a
// denied call with a printable line, nothing, or no report.
func FuzzReadDenial(f *testing.F) {
	report := make([]byte, reportSize)
	binary.LittleEndian.PutUint32(report, uint32(unix.SIGSYS))
	binary.LittleEndian.PutUint32(report[offCode:], sysSeccomp)
	binary.LittleEndian.PutUint32(report[offSyscall:], unix.SYS_IOCTL)
	f.Add(report)
	f.Add(report[:reportSize-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ReadDenial(bytes.NewReader(data))
		if (d != nil && err != nil) || (len(data) == 0) != (d == nil && err == nil) {
			t.Fatalf("%v, %v", d, err)
		}
		if d != nil && strings.ContainsFunc(d.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", d.Error())
		}
	})
}
