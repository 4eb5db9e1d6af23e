package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"

	"github.com/duplex-run/duplex/image"
	"github.com/duplex-run/duplex/internal/cmdline"
)

var imageCommand = command{
	name:    "image",
	args:    "import|ls|inspect|rm|prune",
	summary: "Import, list, inspect and remove images",
	run: func(ctx context.Context, a *app, args []string) error {
		return a.group(ctx, imageCommands, args)
	},
}

var imageCommands = []command{
	{name: "import", args: "IMAGE", summary: "Import an image, as run and compare do by themselves", run: runImageImport},
	{name: "ls", summary: "List the imported images, the newest first", run: runImageLs},
	{name: "inspect", args: "IMAGE|DIGEST", summary: "Say what an imported image is", run: runImageInspect},
	{name: "rm", args: "IMAGE|DIGEST...", summary: "Remove imported images", run: runImageRm},
	{name: "prune", summary: "Remove images whose source has changed since, and leftovers", run: runImagePrune},
}

// shortDigest is how many digits people are shown.
const shortDigest = 12

func short(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(shortDigest, len(hex))]
}

func runImageImport(ctx context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one image, got %d", fs.NArg())
	}
	img, err := a.Image(ctx, fs.Arg(0), false)
	if err != nil {
		return err
	}
	if *asJSON {
		err = cmdline.PrintJSON(a.Out, img)
	} else {
		_, err = fmt.Fprintln(a.Out, img.Digest)
	}
	return errors.Join(err, img.Close())
}

func runImageLs(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	quiet := fs.BoolP("quiet", "q", false, "print digests only")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	list, err := image.List()
	if err != nil {
		return err
	}
	return printImages(a.Out, list, *asJSON, *quiet)
}

// printImages prints a table that fits 80 columns, JSON, or digests.
func printImages(w io.Writer, list []*image.Image, asJSON, quiet bool) error {
	if asJSON {
		if list == nil {
			list = []*image.Image{}
		}
		return cmdline.PrintJSON(w, list)
	}
	if quiet {
		for _, img := range list {
			if _, err := fmt.Fprintln(w, img.Digest); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "DIGEST\tSIZE\tIMPORTED\tIMAGE")
	for _, img := range list {
		if img.Damaged {
			_, _ = fmt.Fprintf(tw, "%s\t-\t-\t(damaged; 'image prune' removes it)\n", short(img.Digest))
			continue
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", short(img.Digest), units.BytesSize(float64(img.DiskUsage)),
			img.Imported.Format("2006-01-02 15:04"), ellipsis(printable(img.Ref), 36))
	}
	return tw.Flush()
}

// ellipsis shortens s to at most width characters at its front, where paths
// have the least to say, and keeps the kind of reference.
func ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	kind, _, _ := strings.Cut(s, ":")
	kind += ":..."
	return kind + string(r[len(r)-(width-len(kind)):])
}

func runImageInspect(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return a.Usage("want one image, got %d", fs.NArg())
	}
	found, err := image.Find(fs.Arg(0))
	if err != nil {
		return err
	}
	if *asJSON {
		return cmdline.PrintJSON(a.Out, found[0])
	}
	return printImage(a.Out, found[0])
}

func printImage(w io.Writer, img *image.Image) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", key+":", fmt.Sprintf(format, args...))
	}
	line("Image", "%s", printable(img.Ref))
	line("Digest", "%s", img.Digest)
	line("Imported", "%s", img.Imported.Format("2006-01-02 15:04:05 MST"))
	line("Size", "%s on disk, %s as a disk", units.BytesSize(float64(img.DiskUsage)), units.BytesSize(float64(img.Size)))
	line("Files", "%d", img.Inodes)
	line("EROFS", "%s", img.EROFS)
	line("Tree", "%s", orNone(img.Tree))
	c := img.Config
	line("Entrypoint", "%s", orNone(quoted(c.Entrypoint)))
	line("Cmd", "%s", orNone(quoted(c.Cmd)))
	line("User", "%s", orNone(printable(c.User)))
	line("Workdir", "%s", orNone(printable(c.WorkingDir)))
	for _, e := range c.Env {
		line("Env", "%s", printable(e))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted prints argv so that arguments can be told apart and nothing of an
// image's making reaches the terminal unescaped.
func quoted(argv []string) string {
	parts := make([]string, len(argv))
	for i, arg := range argv {
		parts[i] = fmt.Sprintf("%q", arg)
	}
	return strings.Join(parts, " ")
}

func printable(s string) string {
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}

func runImageRm(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return a.Usage("which image?")
	}
	var removed []*image.Image
	var errs error
	for _, name := range fs.Args() {
		found, err := image.Find(name)
		errs = errors.Join(errs, err)
		for _, img := range found {
			if err := image.Remove(img); err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			removed = append(removed, img)
		}
	}
	return errors.Join(printImages(a.Out, removed, *asJSON, true), errs)
}

func runImagePrune(_ context.Context, a *app, args []string) error {
	fs := a.Flags()
	asJSON := fs.Bool("json", false, "print JSON")
	all := fs.BoolP("all", "a", false, "remove every image that no run uses")
	if err := a.Parse(fs, args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return a.Usage("unexpected argument %q", fs.Arg(0))
	}
	removed, err := image.Prune(*all)
	return errors.Join(printImages(a.Out, removed, *asJSON, true), err)
}
