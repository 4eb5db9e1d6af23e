package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// multiplexer is the other way to a call of 32-bit x86: by socketcall or ipc, whose
// first argument says which call is meant. A rule for the call is one for that way,
// too, as with libseccomp.
type multiplexer struct {
	call  string
	which uint64
}

// args are the comparisons of the rule that has args for the call itself. What is
// compared with the first argument is in memory here, where no filter sees it: it is
// left out. The rest stays, though it is a comparison with something else: that
// is what libseccomp does.
func (m multiplexer) args(args []specs.LinuxSeccompArg) []specs.LinuxSeccompArg {
	which := specs.LinuxSeccompArg{Op: specs.OpEqualTo, Value: m.which}
	if m.call == "ipc" { // the upper half is a version
		which = specs.LinuxSeccompArg{Op: specs.OpMaskedEqual, Value: 0xffff, ValueTwo: m.which}
	}
	out := []specs.LinuxSeccompArg{which}
	for _, a := range args {
		if a.Index != 0 {
			out = append(out, a)
		}
	}
	return out
}

// multiplexers are SYS_SOCKET and so on (linux/net.h), SEMOP and so on (linux/ipc.h).
var multiplexers = map[string]multiplexer{
	"socket": {"socketcall", 1}, "bind": {"socketcall", 2}, "connect": {"socketcall", 3}, "listen": {"socketcall", 4},
	"accept": {"socketcall", 5}, "getsockname": {"socketcall", 6}, "getpeername": {"socketcall", 7},
	"socketpair": {"socketcall", 8}, "send": {"socketcall", 9}, "recv": {"socketcall", 10}, "sendto": {"socketcall", 11},
	"recvfrom": {"socketcall", 12}, "shutdown": {"socketcall", 13}, "setsockopt": {"socketcall", 14},
	"getsockopt": {"socketcall", 15}, "sendmsg": {"socketcall", 16}, "recvmsg": {"socketcall", 17},
	"accept4": {"socketcall", 18}, "recvmmsg": {"socketcall", 19}, "sendmmsg": {"socketcall", 20},
	"semop": {"ipc", 1}, "semget": {"ipc", 2}, "semctl": {"ipc", 3}, "semtimedop": {"ipc", 4},
	"msgsnd": {"ipc", 11}, "msgrcv": {"ipc", 12}, "msgget": {"ipc", 13}, "msgctl": {"ipc", 14},
	"shmat": {"ipc", 21}, "shmdt": {"ipc", 22}, "shmget": {"ipc", 23}, "shmctl": {"ipc", 24},
}
