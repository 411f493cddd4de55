package pgtest

import "syscall"

// serverAttr makes the server stop at once (SIGQUIT) when the test's process
// dies before its cleanup, as after a timeout.
func serverAttr(owner *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGQUIT}
}
