package initramfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/duplex-run/duplex/internal/embedded"
	"github.com/duplex-run/duplex/internal/hostdir"
	"github.com/duplex-run/duplex/kernel"
)

// modulesDir is where the agent finds its modules; orderName lists them, and
// lateName followed by the name of a late module those to load for it.
const (
	modulesDir = "modules"
	orderName  = modulesDir + "/order"
	lateName   = modulesDir + "/late-"
)

// format changes when the layout of the archive does, so that archives in the
// cache made by an older duplex are not used.
const format = 3

// Options say what to build.
type Options struct {
	// Kernel whose modules go in.
	Kernel *kernel.Kernel
	// Set of modules, MicroVM or Lab.
	Set Set
	// Agent is the ELF executable of /init; nil means the embedded one.
	Agent []byte
}

// Stats describe an archive.
type Stats struct {
	Bytes   int64 `json:"bytes"`   // size of the archive
	Files   int   `json:"files"`   // entries, directories too
	Modules int   `json:"modules"` // kernel modules among them
}

// keep bounds the bytes of the cached archives: some forty of them.
const keep = 256 << 20

// Build returns the path of the archive, in the cache, making it when it is not
// there. It is safe to call from several processes at once.
func Build(ctx context.Context, opts Options) (string, Stats, error) {
	key, err := opts.key()
	if err != nil {
		return "", Stats{}, fmt.Errorf("build initramfs: %w", err)
	}
	path, err := hostdir.Cache("initramfs", key+".cpio")
	if err != nil {
		return "", Stats{}, err
	}
	err = hostdir.MakeBounded(ctx, path, keep, func(f *os.File) error {
		modules, err := opts.Set.Modules(opts.Kernel)
		if err != nil {
			return err
		}
		agent := opts.Agent
		if agent == nil {
			if agent, err = embedded.Agent(); err != nil {
				return err
			}
		}
		w := bufio.NewWriterSize(f, 1<<20)
		if err := write(w, agent, modules, opts); err != nil {
			return err
		}
		return w.Flush()
	})
	if err != nil {
		return "", Stats{}, fmt.Errorf("build initramfs: %w", err)
	}
	stats, err := count(path)
	if err != nil {
		return "", Stats{}, fmt.Errorf("read initramfs %s: %w", path, err)
	}
	return path, stats, nil
}

// key identifies the archive by everything that its bytes depend on.
func (o Options) key() (string, error) {
	agent, err := embedded.AgentID()
	if o.Agent != nil {
		sum := sha256.Sum256(o.Agent)
		agent, err = hex.EncodeToString(sum[:]), nil
	}
	if err != nil {
		return "", err
	}
	modules, err := o.Kernel.ModulesID()
	if err != nil {
		return "", err
	}
	data, err := json.Marshal([]any{format, agent, modules, o.Set})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// write writes the archive: directories, the agent, the modules, their order.
func write(w io.Writer, agent []byte, modules []kernel.Module, opts Options) error {
	rw := cpio.Newc.Writer(w)
	for _, dir := range []string{"dev", "proc", "sys", modulesDir} {
		if err := rw.WriteRecord(record(cpio.Directory(dir, 0o755))); err != nil {
			return err
		}
	}
	if err := rw.WriteRecord(record(file("init", agent, 0o755))); err != nil {
		return err
	}
	written := map[string]bool{}
	signed, err := opts.Kernel.WantsSignatures()
	if err != nil {
		return err
	}
	if err := writeModules(rw, orderName, modules, signed, written); err != nil {
		return err
	}
	for _, name := range opts.Set.Late {
		modules, ok, err := late(opts.Kernel, name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := writeModules(rw, lateName+name, modules, signed, written); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(rw)
}

// writeModules writes the modules that are not written yet, and a list of all.
func writeModules(rw cpio.RecordWriter, list string, modules []kernel.Module, signed bool, written map[string]bool) error {
	var order strings.Builder
	for _, m := range modules {
		name := m.Name + ".ko"
		fmt.Fprintln(&order, name)
		if written[name] {
			continue
		}
		written[name] = true
		data, err := m.Read()
		if err != nil {
			return err
		}
		if err := rw.WriteRecord(record(file(path.Join(modulesDir, name), prepare(data, signed), 0o644))); err != nil {
			return err
		}
	}
	return rw.WriteRecord(record(file(list, []byte(order.String()), 0o644)))
}

func file(name string, data []byte, perm uint64) cpio.Record {
	return cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | perm, NLink: 1})
}

// record drops what differs between hosts.
func record(r cpio.Record) cpio.Record { return cpio.MakeReproducible(r) }

// count reads the headers of the archive at path.
func count(path string) (Stats, error) {
	f, err := os.Open(path)
	if err != nil {
		return Stats{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Bytes: info.Size()}
	err = cpio.ForEachRecord(cpio.Newc.Reader(f), func(r cpio.Record) error {
		s.Files++
		if strings.HasSuffix(r.Name, ".ko") {
			s.Modules++
		}
		return nil
	})
	return s, err
}
