// Package launch holds the last steps before a workload's execve(2), the same
// for the container's init and for the guest agent, so that one Spec ends with
// one status on both sides.
//
// The caller is already inside the workload's final root file system. It calls
//
//	path, exit, err := launch.Prepare(spec)   // cwd made and entered, command found
//	env := launch.Environ(spec)
//	launch.Credentials(spec.User)             // or SysCredential for a child
//	err = execve(path, spec.Argv, env)
//	exit = launch.ExecFailed(spec.Argv[0], err)
//
// Rules, all docker's:
//   - the working directory is made when it is missing, mode 0755, owned by
//     root, and entered with root's permissions, so a directory the user may
//     not search is still a valid cwd;
//   - a command without a slash is searched in PATH of the workload's own
//     environment, with the user's permissions, not root's. Empty and relative
//     PATH elements are skipped;
//   - a command that is not there ends with 127, one that is there but cannot
//     be executed with 126, both with a message; neither is an error of duplex.
//
// The guest agent links this package: it depends on x/sys and the standard
// library's small packages only.
package launch
