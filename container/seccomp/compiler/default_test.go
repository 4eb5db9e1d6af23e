package compiler

import "testing"

// Reading and compiling the profile is what default.bpf saves each start.
func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if _, _, err := Default([]string{"CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_KILL"}); err != nil {
			b.Fatal(err)
		}
	}
}
