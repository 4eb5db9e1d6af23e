package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/duplex-run/duplex/internal/workload"
)

// needed are the programs that building a kernel takes, and Debian's package of
// each. perl and tar are part of every Debian, not of every machine.
var needed = []struct{ program, pkg string }{
	{"make", "make"}, {"gcc", "gcc"}, {"ld", "binutils"}, {"flex", "flex"}, {"bison", "bison"},
	{"bc", "bc"}, {"perl", "perl"}, {"tar", "tar"}, {"xz", "xz-utils"},
}

// headers are what the kernel's own build programs include.
var headers = []struct{ header, pkg string }{
	{"stdio.h", "libc6-dev"},
	{"gelf.h", "libelf-dev"}, // objtool
}

// checkTools returns nil when everything is installed that a build takes. The
// error names what is not, and has the command that installs it.
func checkTools(ctx context.Context) error {
	var lacking, packages []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil {
			lacking, packages = append(lacking, n.program), append(packages, n.pkg)
		}
	}
	_, err := exec.LookPath("gcc")
	for _, h := range headers {
		if err == nil && !hasHeader(ctx, h.header) {
			lacking, packages = append(lacking, h.header), append(packages, h.pkg)
		}
	}
	if err != nil { // then nobody knows: their packages do no harm
		for _, h := range headers {
			packages = append(packages, h.pkg)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(lacking) == 0 {
		return nil
	}
	slices.Sort(packages)
	return &workload.Error{
		Op:     buildOp,
		Err:    fmt.Errorf("not installed: %s", strings.Join(lacking, ", ")),
		Remedy: "'apt-get install " + strings.Join(slices.Compact(packages), " ") + "' (as root; Debian's and Ubuntu's names) installs it",
	}
}

// hasHeader asks the preprocessor, which alone knows where headers are.
func hasHeader(ctx context.Context, header string) bool {
	cmd := exec.CommandContext(ctx, "gcc", "-E", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <" + header + ">\n")
	return cmd.Run() == nil
}

// toolchain identifies the programs that make the kernel's bytes. That gcc can have
// plugins changes a line of the configuration.
func toolchain(ctx context.Context) (string, error) {
	var lines []string
	for _, program := range []string{"gcc", "ld"} {
		out, err := exec.CommandContext(ctx, program, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("%s --version: %w", program, err)
		}
		first, _, _ := bytes.Cut(out, []byte{'\n'})
		if len(first) == 0 {
			return "", errors.New(program + " does not say its version")
		}
		lines = append(lines, string(first))
	}
	out, err := exec.CommandContext(ctx, "gcc", "-print-file-name=plugin").Output()
	if err != nil {
		return "", fmt.Errorf("gcc -print-file-name=plugin: %w", err)
	}
	if exists(filepath.Join(strings.TrimSpace(string(out)), "include", "plugin-version.h")) {
		lines = append(lines, "plugins")
	}
	return strings.Join(lines, "\n"), nil
}
