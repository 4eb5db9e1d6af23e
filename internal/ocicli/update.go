package ocicli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/duplex-run/duplex/oci"
)

// maxResources bounds what update reads from a file, in bytes.
const maxResources = 1 << 20

func ociUpdate(_ context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	file := fs.StringP("resources", "r", "", "read the limits from `FILE`, linux.resources as JSON; - is standard input")
	set := updateFlags(fs)
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	res := &specs.LinuxResources{}
	if *file != "" {
		if err := readResources(o, *file, res); err != nil {
			return o.fail(err)
		}
	}
	if err := set(res); err != nil {
		return o.usage("%v", err)
	}
	c, err := o.open(fs, true)
	if err != nil {
		return err
	}
	defer c.Close()
	return o.fail(c.Update(res))
}

func readResources(o *ociApp, file string, res *specs.LinuxResources) error {
	in := io.Reader(o.in)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxResources))
	if err == nil {
		err = json.Unmarshal(data, res)
	}
	if err != nil {
		return fmt.Errorf("read the resources: %w", err)
	}
	return nil
}

// updateFlags registers runc's flags; the function it returns puts those given
// into resources.
func updateFlags(fs *pflag.FlagSet) func(*specs.LinuxResources) error {
	u64 := map[string]func(*specs.LinuxResources, uint64){}
	i64 := map[string]func(*specs.LinuxResources, int64){}
	size := map[string]func(*specs.LinuxResources, int64){}
	text := map[string]func(*specs.LinuxResources, string){}
	cpu := func(r *specs.LinuxResources) *specs.LinuxCPU {
		if r.CPU == nil {
			r.CPU = &specs.LinuxCPU{}
		}
		return r.CPU
	}
	memory := func(r *specs.LinuxResources) *specs.LinuxMemory {
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		return r.Memory
	}
	u64["cpu-period"] = func(r *specs.LinuxResources, n uint64) { cpu(r).Period = &n }
	u64["cpu-share"] = func(r *specs.LinuxResources, n uint64) { cpu(r).Shares = &n }
	u64["cpu-burst"] = func(r *specs.LinuxResources, n uint64) { cpu(r).Burst = &n }
	u64["cpu-rt-period"] = func(r *specs.LinuxResources, n uint64) { cpu(r).RealtimePeriod = &n }
	i64["cpu-quota"] = func(r *specs.LinuxResources, n int64) { cpu(r).Quota = &n }
	i64["cpu-rt-runtime"] = func(r *specs.LinuxResources, n int64) { cpu(r).RealtimeRuntime = &n }
	i64["cpu-idle"] = func(r *specs.LinuxResources, n int64) { cpu(r).Idle = &n }
	i64["pids-limit"] = func(r *specs.LinuxResources, n int64) { r.Pids = &specs.LinuxPids{Limit: &n} }
	u64["blkio-weight"] = func(r *specs.LinuxResources, n uint64) {
		w := uint16(min(n, 1<<16-1))
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}
	size["memory"] = func(r *specs.LinuxResources, n int64) { memory(r).Limit = &n }
	size["memory-reservation"] = func(r *specs.LinuxResources, n int64) { memory(r).Reservation = &n }
	size["memory-swap"] = func(r *specs.LinuxResources, n int64) { memory(r).Swap = &n }
	text["cpuset-cpus"] = func(r *specs.LinuxResources, s string) { cpu(r).Cpus = s }
	text["cpuset-mems"] = func(r *specs.LinuxResources, s string) { cpu(r).Mems = s }
	for name := range u64 {
		fs.Uint64(name, 0, "see linux.resources")
	}
	for name := range i64 {
		fs.Int64(name, 0, "see linux.resources")
	}
	for name := range size {
		fs.String(name, "", "`SIZE` in bytes or with a unit; -1 is no limit")
	}
	for name := range text {
		fs.String(name, "", "`LIST` of numbers")
	}
	return func(r *specs.LinuxResources) (err error) {
		fs.Visit(func(f *pflag.Flag) {
			switch {
			case u64[f.Name] != nil:
				n, _ := fs.GetUint64(f.Name)
				u64[f.Name](r, n)
			case i64[f.Name] != nil:
				n, _ := fs.GetInt64(f.Name)
				i64[f.Name](r, n)
			case text[f.Name] != nil:
				text[f.Name](r, f.Value.String())
			case size[f.Name] != nil:
				n, serr := units.RAMInBytes(f.Value.String())
				if f.Value.String() == "-1" {
					n, serr = -1, nil
				}
				if serr != nil {
					err = fmt.Errorf("--%s=%s: not a size", f.Name, f.Value)
				}
				size[f.Name](r, n)
			}
		})
		return err
	}
}

func ociEvents(ctx context.Context, o *ociApp, fs *pflag.FlagSet, args []string) error {
	once := fs.Bool("stats", false, "print what the container uses, once")
	interval := fs.Duration("interval", 5*time.Second, "print it every `TIME`")
	if err := o.parse(fs, args, 0); err != nil {
		return err
	}
	if *interval <= 0 {
		return o.usage("--interval=%v: want more than 0", *interval)
	}
	if *once {
		*interval = 0
	}
	c, err := o.open(fs, false)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(o.out)
	return o.fail(c.Events(ctx, *interval, func(e oci.Event) error { return enc.Encode(e) }))
}
