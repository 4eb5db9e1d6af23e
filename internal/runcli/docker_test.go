package runcli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/duplex-run/duplex/internal/cmdline"
	"github.com/duplex-run/duplex/internal/workload"
)

// dockerRunFlags are the flags of docker 28.2.2's `docker run`, and the hidden
// and old spellings that it still takes.
const dockerRunFlags = `add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns
cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach
detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust
dns dns-opt dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval
health-retries health-start-interval health-start-period health-timeout help hostname init interactive io-maxbandwidth io-maxiops
ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation
memory-swap memory-swappiness mount name net net-alias network network-alias no-healthcheck oom-kill-disable oom-score-adj pid
pids-limit platform privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size sig-proxy
stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume volume-driver volumes-from
workdir`

// Every flag of docker's is known, and means the same by its one-letter name.
func TestDockerFlagsKnown(t *testing.T) {
	var f Flags
	fs := (&App{Cmd: RunCommand}).Flags()
	f.Register(fs)
	for name := range strings.FieldsSeq(dockerRunFlags) {
		if name != "help" && fs.Lookup(name) == nil {
			t.Errorf("--%s is an unknown flag", name)
		}
	}
	for short, name := range map[string]string{"a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname", "i": "interactive",
		"l": "label", "m": "memory", "p": "publish", "P": "publish-all", "q": "quiet", "t": "tty", "u": "user", "v": "volume", "w": "workdir"} {
		if got := fs.ShorthandLookup(short); got == nil || got.Name != name {
			t.Errorf("-%s is %v, want --%s", short, got, name)
		}
	}
}

// Those that duplex lacks are refused by name with a reason, on both sides and
// before anything is done; what is so anyway may be asked for.
func TestDockerFlagsRefused(t *testing.T) {
	run := func(args ...string) (string, int) {
		var errs bytes.Buffer
		a := &App{Out: &bytes.Buffer{}, Err: &errs, Cmd: RunCommand}
		status := new(cmdline.Signals).Finish(&errs, Run(t.Context(), a, args))
		return errs.String(), status
	}
	for _, d := range dockerFlags {
		arg := "--" + d.name
		if !d.boolean {
			arg += "=x"
		}
		if d.boolean && len(d.same) > 0 {
			arg = "--" + d.name + "=x"
		}
		want := "duplex: run: --" + d.name + " is not supported: " + d.why + "\n'duplex run --help' lists the flags\n"
		for _, iso := range []string{"--vm", "--container"} {
			if got, status := run(iso, arg, "image"); got != want || status != workload.StatusError {
				t.Errorf("%s %s: status %d, %q, want %q", iso, arg, status, got, want)
			}
		}
		for _, same := range d.same { // and so the next error comes
			if got, _ := run("--"+d.name+"="+same, "--cpus=-1", "image"); !strings.Contains(got, "--cpus=-1: out of range") {
				t.Errorf("--%s=%s: %q", d.name, same, got)
			}
		}
	}
}
