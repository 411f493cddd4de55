package testkube

import "syscall"

// attr ends the program when the test's process dies before its cleanup.
func attr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
