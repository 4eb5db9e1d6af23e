package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/internal/workload"
	"github.com/duplex-run/duplex/kernel"
	"github.com/duplex-run/duplex/kernel/configs"
)

// Options say what to build.
type Options struct {
	// Minimal leaves default.config out: what reaches a workload and no more.
	Minimal bool
	// Fragments are files applied after ours; a later one wins.
	Fragments []string
	// Source is a source package, a directory or a tarball; empty means the
	// distribution's newest source package.
	Source string
	// Jobs bounds what make runs at once; 0 means one for each CPU.
	Jobs int
}

const buildOp = "build a guest kernel"

// Build returns the kernel that o describes, building it when the cache lacks it.
// It needs no root. Of several builds of one kernel at once the others wait for the
// first. One that fails or is cancelled leaves its log and nothing else. Errors are
// *workload.Error.
func Build(ctx context.Context, o Options, progress kernel.Progress) (*kernel.Kernel, error) {
	k, err := build(ctx, o, progress)
	var werr *workload.Error
	switch {
	case err == nil:
		return k, nil
	case ctx.Err() != nil: // before its consequences ("signal: killed")
		return nil, &workload.Error{Op: buildOp, Err: ctx.Err()}
	case errors.As(err, &werr):
		return nil, err
	}
	return nil, &workload.Error{Op: buildOp, Err: err}
}

func build(ctx context.Context, o Options, progress kernel.Progress) (*kernel.Kernel, error) {
	want, otherVersions, err := o.settings()
	if err != nil {
		return nil, &workload.Error{Op: "read the kernel's configuration", Err: err}
	}
	if err := checkTools(ctx); err != nil {
		return nil, err
	}
	if err := checkCache(); err != nil {
		return nil, err
	}
	src, err := findSource(ctx, o.Source, progress)
	if err != nil {
		return nil, err
	}
	tools, err := toolchain(ctx)
	if err != nil {
		return nil, err
	}
	b := &builder{
		options: o, want: want, otherVersions: otherVersions,
		source: src, key: keyOf(src.id, tools, want), progress: progress,
	}
	if k, err := built(b.key); k != nil || err != nil {
		return k, err
	}
	return b.locked(ctx)
}

// settings are what the fragments ask for, ours first, and which of the options
// some versions of Linux lack.
func (o Options) settings() (want settings, otherVersions map[string]bool, err error) {
	want, otherVersions = settings{}, map[string]bool{}
	add := func(name, text string) error {
		f, err := parseFragment(name, text)
		want = merge(want, f)
		for _, option := range versioned(text) {
			otherVersions[option] = true
		}
		return err
	}
	err = add("minimal.config", configs.Minimal())
	if err == nil && !o.Minimal {
		err = add("default.config", configs.Default())
	}
	for _, path := range o.Fragments {
		if err != nil {
			break
		}
		var text []byte
		if text, err = os.ReadFile(path); err == nil {
			err = add(path, string(text))
		}
	}
	return want, otherVersions, err
}

// builder is one build that the cache did not have.
type builder struct {
	options Options
	want    settings
	// otherVersions has the options of want that the kernel may lack.
	otherVersions map[string]bool
	source        source
	key           string
	progress      kernel.Progress
}

// Names in the directory of a build.
const (
	workName = "work"
	logName  = "build.log"
)

// locked builds when nobody else builds the same, and removes what it and any killed
// build left.
func (b *builder) locked(ctx context.Context) (k *kernel.Kernel, err error) {
	dir, err := hostdir.Cache("kernel-build", b.key)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	b.progress.Report("wait for another build", -1)
	if err := hostdir.Lock(ctx, lock); err != nil {
		return nil, err
	}
	if k, err := built(b.key); k != nil || err != nil {
		return k, err
	}
	work := filepath.Join(dir, workName)
	if err := os.RemoveAll(work); err != nil {
		return nil, err
	}
	sweep(filepath.Dir(dir))
	defer func() {
		b.progress.Report("clean up", -1)
		err = errors.Join(diskFull(ctx, dir, err), os.RemoveAll(work))
	}()
	if err := b.room(dir); err != nil {
		return nil, err
	}
	m := &maker{out: filepath.Join(work, "out"), temp: filepath.Join(work, "tmp"), hold: lock}
	for _, dir := range []string{work, m.out, m.temp} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if m.tree, err = b.source.tree(ctx, work, b.progress); err != nil {
		return nil, err
	}
	if err := checkTree(m.tree); err != nil {
		return nil, err
	}
	if m.log, err = os.Create(filepath.Join(dir, logName)); err != nil {
		return nil, err
	}
	defer func() { _ = m.log.Close() }()
	return b.make(ctx, m)
}

// make configures, compiles and installs.
func (b *builder) make(ctx context.Context, m *maker) (*kernel.Kernel, error) {
	config, err := b.configure(ctx, m)
	if err != nil {
		return nil, err
	}
	jobs := b.options.Jobs
	if jobs <= 0 {
		jobs = runtime.NumCPU()
	}
	count, about := 0, estimate(config)
	err = m.make(ctx, func(line string) {
		if compiled(line) {
			count++
			b.progress.Report(fmt.Sprintf("compile, %d of about %d files,", count, max(about, count)), min(float64(count)/float64(about), 0.99))
		}
	}, "-j"+strconv.Itoa(jobs), "bzImage")
	if err != nil {
		return nil, err
	}
	release, err := m.ask(ctx, "kernelrelease")
	if err != nil {
		return nil, err
	}
	version, _, _ := strings.Cut(release, "-")
	b.progress.Report("install", -1)
	boot := filepath.Join(m.out, "arch", "x86", "boot")
	return kernel.Install(ctx, kernel.Built{
		Name:    b.options.flavour() + "-" + version + "_" + b.key,
		Release: release, Source: b.source.label,
		Vmlinux: filepath.Join(boot, "compressed", "vmlinux.bin"),
		BzImage: filepath.Join(boot, "bzImage"),
		Config:  filepath.Join(m.out, ".config"),
	})
}

// flavour starts a kernel's name.
func (o Options) flavour() string {
	if o.Minimal {
		return "minimal"
	}
	return "duplex"
}

// estimate guesses how many files a configuration compiles: make does not know
// before it has made them. Files grow with options; the base is what the smallest
// kernel has (Linux 6.1).
func estimate(config settings) int {
	on := 0
	for _, value := range config {
		if value == "y" {
			on++
		}
	}
	return 600 + 2*on
}

// configure makes the configuration and checks that it is what was asked for.
// With KCONFIG_ALLCONFIG, allnoconfig takes the fragment's values and says no to all
// else, also to what the fragment uncovers. merge_config.sh and olddefconfig would
// give such options their defaults: keyboards, because there is CONFIG_INPUT.
func (b *builder) configure(ctx context.Context, m *maker) (settings, error) {
	b.progress.Report("configure", -1)
	fragment := filepath.Join(m.temp, "fragment.config")
	if err := os.WriteFile(fragment, []byte(b.want.String()), 0o600); err != nil {
		return nil, err
	}
	if err := m.make(ctx, nil, "KCONFIG_ALLCONFIG="+fragment, "allnoconfig"); err != nil {
		return nil, err
	}
	path := filepath.Join(m.out, ".config")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(path, string(text))
	if err != nil {
		return nil, err
	}
	why, err := explain(m.tree, config, missing(b.want, config), b.otherVersions)
	if err != nil || why == "" {
		return config, err
	}
	return nil, &workload.Error{Op: buildOp, Err: fmt.Errorf("%s did not take these options:%s", b.source.label, why),
		Remedy: "--config FRAGMENT sets options after ours: add what one depends on, or take it back with \"# CONFIG_NAME is not set\""}
}
