package bootbench

// Monitor is what boots.
type Monitor string

// The monitors. Container is no monitor: it runs the same image, for reference.
const (
	Duplex    Monitor = "duplex"
	QEMU      Monitor = "QEMU"
	Container Monitor = "container"
)

// Kernel is which of the two guest kernels boots.
type Kernel string

// The kernels: the distribution's, which `duplex kernel fetch` gets, and the one
// of `duplex kernel build --minimal`.
const (
	Distribution Kernel = "distribution"
	Minimal      Kernel = "minimal"
)

// What is booted.
const (
	// Bare is a kernel with an initramfs that holds one program of 82 bytes of
	// code: it writes a line with Ready to the console.
	Bare = "bare"
	// Image runs a command of the builtin image: a kernel, the modules it needs,
	// the image mounted with a writable layer over it, and the command.
	Image = "image"
	// Warm is Image in a machine that is restored from a snapshot; the warm-up run
	// makes it.
	Warm = "warm"
	// Bundle is that command in a microVM of `duplex oci --isolation=vm run`, of a
	// bundle whose rootfs has nothing else. The minimal kernel lacks what bundles
	// take (BPF, a memory cgroup).
	Bundle = "bundle"
)

// Ready is the byte that says on the serial port that user space runs (in the
// case of an image: that the command is about to be executed).
const Ready = 0x06

// Case is one kind of boot.
type Case struct {
	What    string // Bare, Image, Warm or Bundle
	Monitor Monitor
	Kernel  Kernel // "" for Container
}

// Cases in the order of the table.
var Cases = []Case{
	{Bare, Duplex, Distribution},
	{Bare, QEMU, Distribution},
	{Bare, Duplex, Minimal},
	{Bare, QEMU, Minimal},
	{Image, Duplex, Distribution},
	{Image, Duplex, Minimal},
	{Image, QEMU, Distribution},
	{Image, QEMU, Minimal},
	{Warm, Duplex, Distribution},
	{Warm, Duplex, Minimal},
	{Image, Container, ""},
	{Bundle, Duplex, Distribution},
}

// Name is the case in one word.
func (c Case) Name() string {
	name := c.What + "/" + string(c.Monitor)
	if c.Kernel != "" {
		name += "/" + string(c.Kernel)
	}
	return name
}

// FindCase is the case with a name.
func FindCase(name string) (Case, bool) {
	for _, c := range Cases {
		if c.Name() == name {
			return c, true
		}
	}
	return Case{}, false
}

// Target is how a boot of duplex's has to compare with one of QEMU's.
type Target struct {
	Title        string
	Ours, Theirs Case
	Must, Goal   float64 // at most, as a ratio; 0 for no target
}

// Targets in the order of the table.
var Targets = []Target{
	{"the same distribution kernel and initramfs", Case{Bare, Duplex, Distribution}, Case{Bare, QEMU, Distribution}, 0.9, 0.75},
	{"the same minimal kernel and initramfs", Case{Bare, Duplex, Minimal}, Case{Bare, QEMU, Minimal}, 0.9, 0.75},
	{"the image, minimal kernel in duplex, distribution kernel in QEMU", Case{Image, Duplex, Minimal}, Case{Image, QEMU, Distribution}, 0.5, 0.3},
	{"the image, minimal kernel in both", Case{Image, Duplex, Minimal}, Case{Image, QEMU, Minimal}, 0.5, 0.3},
	{"the image, distribution kernel in both", Case{Image, Duplex, Distribution}, Case{Image, QEMU, Distribution}, 0, 0},
	{"the image, minimal kernel in duplex, against our container", Case{Image, Duplex, Minimal}, Case{Image, Container, ""}, 0, 0},
	{"the image restored, minimal kernel, against our container", Case{Warm, Duplex, Minimal}, Case{Image, Container, ""}, 1.5, 1},
	{"the image restored, distribution kernel, against our container", Case{Warm, Duplex, Distribution}, Case{Image, Container, ""}, 1.5, 1},
}
