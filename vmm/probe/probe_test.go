package probe

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duplex-run/duplex/vmm/kvm"
)

// inLab says that these tests run in the lab, whose KVM must pass.
func inLab() bool { return os.Getenv("DUPLEX_IN_LAB") == "1" }

// TestRun probes whatever this host has; what it must find depends on where it
// runs, that its parts agree does not.
func TestRun(t *testing.T) {
	began := time.Now()
	r, err := Run()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%+v in %v", r, took)
	if inLab() && !r.BootsStockKernel {
		t.Error("the lab's KVM cannot boot a stock kernel")
	}
	if !inLab() && took > 1500*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if r.Why == "" || r.BootsStockKernel != (r.Remedy == "") {
		t.Errorf("verdict %v: why %q, remedy %q", r.BootsStockKernel, r.Why, r.Remedy)
	}
	all := len(r.Steps) > 0
	for _, s := range r.Steps {
		all = all && s.OK
		if s.Detail == "" {
			t.Errorf("step %s has no detail", s.Name)
		}
	}
	if all != r.BootsStockKernel {
		t.Errorf("verdict %v, all steps fine: %v", r.BootsStockKernel, all)
	}
}

func TestUnopened(t *testing.T) {
	for _, c := range []struct {
		err     error
		present bool
		remedy  string
	}{
		{unix.ENOENT, false, "kvm_amd"},
		{unix.EACCES, true, "group"},
		{unix.EMFILE, true, "administrator"},
	} {
		r, err := Report{}.unopened(&os.PathError{Op: "open", Path: kvm.Path, Err: c.err})
		if err != nil || r.Present != c.present || r.Permission || r.BootsStockKernel {
			t.Errorf("%v: %+v, %v", c.err, r, err)
		}
		if !strings.Contains(r.Remedy, c.remedy) || !strings.Contains(r.Why, kvm.Path) {
			t.Errorf("%v: why %q, remedy %q", c.err, r.Why, r.Remedy)
		}
	}
}

func TestJudge(t *testing.T) {
	steps := func(failed ...string) (s []Step) {
		for _, name := range []string{LongMode, Breakpoint, CMPXCHG16B, Timer, Speed} {
			s = append(s, Step{Name: name, OK: !strings.Contains(strings.Join(failed, " "), name)})
		}
		return s
	}
	for _, c := range []struct {
		failed []string
		boots  bool
		why    string
	}{
		{nil, true, "guests run at 1234 million instructions a second and get their exceptions and interrupts"},
		{[]string{Timer}, false, "this KVM cannot deliver interrupts to a guest (it runs 1234.0 million instructions a second)"},
		{[]string{Breakpoint, CMPXCHG16B, Speed}, false, "this KVM cannot deliver exceptions to a guest, " +
			"execute lock cmpxchg16b, or run a guest at a useful speed (it runs 1234.0 million instructions a second)"},
	} {
		r := Report{Steps: steps(c.failed...), MIPS: 1234}
		r.judge()
		if r.BootsStockKernel != c.boots || r.Why != c.why {
			t.Errorf("%v failed: %v, %q", c.failed, r.BootsStockKernel, r.Why)
		}
	}
}

// TestCodeAddresses ties the constants to the instructions they name.
func TestCodeAddresses(t *testing.T) {
	for addr, want := range map[uint64]byte{
		codeDone: 0xb0, codeBreakpoint: 0xcc, codeCMPXCHG: 0x31, codeTimer: 0xb8,
		codeSpeed: 0xe5, codeOnBreakpoint: 0xff, codeOnTimer: 0xff, codeExits: 0xe5,
	} {
		if got := code[addr-codeBase]; got != want {
			t.Errorf("at %#x: %#x, want %#x", addr, got, want)
		}
	}
}

// An exit costs something, and KVM counts as many as the guest made.
func TestExits(t *testing.T) {
	sys, err := kvm.Open()
	if errors.Is(err, os.ErrNotExist) && !inLab() {
		t.Skip("no /dev/kvm; the lab runs this test too")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	if cost, err := ExitCost(); err != nil || cost <= 0 {
		t.Errorf("an exit costs %v, %v", cost, err)
	}
	m, err := newMachine(sys, codeExits)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	counters, err := m.cpu.Counters()
	if err != nil {
		t.Fatal(err) // in Linux since 5.14, and for a PVM too
	}
	defer counters.Close()
	if failure, err := m.run(stepTime, func(io kvm.IO) bool {
		if !io.Write {
			binary.LittleEndian.PutUint32(io.Data, 1000)
		}
		return io.Write
	}); failure != "" || err != nil {
		t.Fatal(failure, err)
	}
	n, err := counters.Read()
	// A paravirtual KVM emulates CPUID without an exit.
	if _, ok := n["halt_exits"]; err != nil || !ok || n["exits"]+n["insn_emulation"] < 1000 || inLab() && n["exits"] < 1000 {
		t.Errorf("%v, %v", n, err)
	}
}

// TestHang stops a guest that never writes its result.
func TestHang(t *testing.T) {
	sys, err := kvm.Open()
	if errors.Is(err, os.ErrNotExist) && !inLab() {
		t.Skip("no /dev/kvm; the lab runs this test too")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	m, err := newMachine(sys, codeDone)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.mem.WriteAt([]byte{0xeb, 0xfe}, 0x1000); err != nil { // jmp .
		t.Fatal(err)
	}
	failure, err := m.run(20*time.Millisecond, func(kvm.IO) bool { return true })
	if err != nil || !strings.HasPrefix(failure, "nothing happened") {
		t.Errorf("%q, %v", failure, err)
	}
}

func TestReportJSON(t *testing.T) {
	b, err := json.Marshal(Report{Missing: []string{}, Steps: []Step{{Name: Timer, OK: true, Detail: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"present":false,"permission":false,"api_version":0,"missing_capabilities":[],` +
		`"steps":[{"name":"timer_interrupt","ok":true,"detail":"x"}],"mips":0,"boots_stock_kernel":false,"why":""}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}
