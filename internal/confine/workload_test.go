package confine

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What a kernel makes of a container's domain.
func TestWorkloadDomain(t *testing.T) {
	all := Workload{Sockets: true, Files: true, NoNodes: true}
	for abi, want := range map[int]rulesetAttr{
		0: {}, 1: {},
		2: {fs: fsMakeChar | fsMakeBlock | fsRefer},
		4: {fs: fsMakeChar | fsMakeBlock | fsRefer},
		5: {fs: fsMakeChar | fsMakeBlock | fsRefer | fsIoctl},
		6: {fs: fsMakeChar | fsMakeBlock | fsRefer | fsIoctl, scoped: scopes},
	} {
		if got, _ := all.domain(abi); got != want {
			t.Errorf("version %d: %+v, want %+v", abi, got, want)
		}
	}
	if got, _ := (Workload{Files: true}).domain(4); got != (rulesetAttr{}) {
		t.Errorf("nothing to forbid: %+v", got)
	}
	if got, _ := (Workload{NoNodes: true}).domain(7); got != (rulesetAttr{}) {
		t.Errorf("no files: %+v", got)
	}
}

// BenchmarkEnter is what a container's domain costs its start.
func BenchmarkEnter(b *testing.B) {
	w := Workload{Files: true, Devices: []string{"/dev"}}
	for range b.N {
		b.StopTimer()
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and ends with it: what it entered is for good
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				done <- err
				return
			}
			b.StartTimer()
			_, err := w.Enter()
			b.StopTimer()
			done <- err
		}()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}
