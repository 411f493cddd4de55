//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const (
	openFlags = 0
	haveModes = false
)

func checkOwner(fs.FileInfo, string) error { return nil }

func syncDir(*os.Root) error { return nil }

// lock refuses: without the lock two processes would share one identity.
func lock(*os.Root, string) (*os.File, error) {
	return nil, fmt.Errorf("lock a file on this system: %w", errors.ErrUnsupported)
}
