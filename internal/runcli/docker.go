package runcli

import (
	"slices"

	"github.com/spf13/pflag"
)

// dockerFlag is a flag of `docker run` that duplex does not have.
type dockerFlag struct {
	name, short string
	boolean     bool
	why         string
	// same are values that ask for what is so anyway: they are accepted.
	same []string
}

// Reasons of more than one flag.
const (
	noDaemon    = "there is no daemon that would do it"
	noRegistry  = "images come from archives and directories, not from registries"
	noDockerNet = "there are no networks of docker's: see --network"
	noLabels    = "runs have no labels: see --name"
	ownNames    = "/etc/hosts and /etc/resolv.conf are the image's, or the network's own"
	noLog       = "a detached run's log is duplex's own: see 'duplex logs'"
	windows     = "it is for Windows"
	noDevices   = "devices of the host are not given to a run; a bundle of 'duplex oci' can have them"
)

// dockerFlags are all flags of docker 28's `docker run` that are not in
// Flags, so that none of them is an unknown flag.
var dockerFlags = []dockerFlag{
	{name: "add-host", why: ownNames},
	{name: "annotation", why: noLabels},
	{name: "attach", short: "a", why: "a run in the foreground has the caller's streams; -d and 'duplex attach' connect to them later"},
	{name: "cgroup-parent", why: "a run's groups are below the caller's own; a bundle of 'duplex oci' can name others"},
	{name: "cidfile", why: "'duplex run -d' prints the id, and --name gives a run a name"},
	{name: "cpu-count", why: windows},
	{name: "cpu-percent", why: windows},
	{name: "detach-keys", why: "Ctrl-P Ctrl-Q leaves an attached run", same: []string{"ctrl-p,ctrl-q"}},
	{name: "device", why: noDevices},
	{name: "device-cgroup-rule", why: noDevices},
	{name: "disable-content-trust", boolean: true, why: noRegistry, same: []string{"true", "false"}},
	{name: "dns", why: ownNames},
	{name: "dns-opt", why: ownNames},
	{name: "dns-option", why: ownNames},
	{name: "dns-search", why: ownNames},
	{name: "domainname", why: "a run has a host name alone: see --hostname"},
	{name: "expose", why: "--publish leads to a port, whatever the image says of it"},
	{name: "gpus", why: noDevices},
	{name: "health-cmd", why: noDaemon},
	{name: "health-interval", why: noDaemon},
	{name: "health-retries", why: noDaemon},
	{name: "health-start-interval", why: noDaemon},
	{name: "health-start-period", why: noDaemon},
	{name: "health-timeout", why: noDaemon},
	{name: "init", boolean: true, why: "a run always has one", same: []string{"true"}},
	{name: "io-maxbandwidth", why: windows},
	{name: "io-maxiops", why: windows},
	{name: "ip", why: noDockerNet},
	{name: "ip6", why: noDockerNet},
	{name: "kernel-memory", why: "kernels no longer have it; --memory counts the kernel's too"},
	{name: "label", short: "l", why: noLabels},
	{name: "label-file", why: noLabels},
	{name: "link", why: noDockerNet},
	{name: "link-local-ip", why: noDockerNet},
	{name: "log-driver", why: noLog},
	{name: "log-opt", why: noLog},
	{name: "mac-address", why: "of a microVM it is --network KIND,mac=ADDRESS"},
	{name: "mount", why: "-v shows files and directories of the host"},
	{name: "net-alias", why: noDockerNet},
	{name: "network-alias", why: noDockerNet},
	{name: "no-healthcheck", boolean: true, why: noDaemon, same: []string{"true", "false"}},
	{name: "platform", why: "images are of this machine's kind", same: []string{"linux/amd64"}},
	{name: "privileged", boolean: true, why: "give what it needs by name, by --cap-add, --security-opt and --pid host, or use a microVM, whose root owns its kernel", same: []string{"false"}},
	{name: "publish-all", short: "P", boolean: true, why: "name the ports by --publish", same: []string{"false"}},
	{name: "pull", why: noRegistry, same: []string{"never", "missing"}},
	{name: "quiet", short: "q", boolean: true, why: noRegistry, same: []string{"true", "false"}},
	{name: "restart", why: noDaemon, same: []string{"no"}},
	{name: "runtime", why: "--isolation says how to run; other runtimes are the engines'"},
	{name: "sig-proxy", boolean: true, why: "signals always go to the command", same: []string{"true"}},
	{name: "stop-signal", why: "'duplex stop' sends TERM, 'duplex kill -s' any signal", same: []string{"SIGTERM", "TERM", "15"}},
	{name: "stop-timeout", why: "'duplex stop -t' says it", same: []string{"10"}},
	{name: "storage-opt", why: "what a run writes is in memory or the run's own directory, without a quota: see --memory"},
	{name: "sysctl", why: "a bundle of 'duplex oci' can have them; the root of a microVM can set them inside"},
	{name: "tmpfs", why: "only /dev/shm has a size of its own: see --shm-size"},
	{name: "use-api-socket", boolean: true, why: noDaemon, same: []string{"false"}},
	{name: "volume-driver", why: "-v shows files and directories of the host"},
	{name: "volumes-from", why: "-v shows files and directories of the host"},
}

// dockerValue takes the values of a flag and remembers those that are refused.
type dockerValue struct {
	flag    dockerFlag
	refused *[]dockerFlag
}

func (dockerValue) String() string { return "" }

func (v dockerValue) Type() string {
	if v.flag.boolean {
		return "bool"
	}
	return "string"
}

func (v dockerValue) Set(value string) error {
	if !slices.Contains(v.flag.same, value) {
		*v.refused = append(*v.refused, v.flag)
	}
	return nil
}

// Refusals are docker's flags that were given and that duplex does not have.
type Refusals []dockerFlag

// Register adds docker's flags to fs: those named, or all.
func (r *Refusals) Register(fs *pflag.FlagSet, names ...string) {
	for _, d := range dockerFlags {
		if len(names) > 0 && !slices.Contains(names, d.name) {
			continue
		}
		f := fs.VarPF(dockerValue{d, (*[]dockerFlag)(r)}, d.name, d.short, "")
		f.Hidden = true
		if d.boolean {
			f.NoOptDefVal = "true"
		}
	}
}

// Check refuses the first of them, by name and with the reason.
func (r Refusals) Check(a *App) error {
	if len(r) == 0 {
		return nil
	}
	return a.Usage("--%s is not supported: %s", r[0].name, r[0].why)
}
