//go:build !linux

package testkube

import "syscall"

func attr() *syscall.SysProcAttr { return nil }
