//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const openFlags = 0

func checkOwner(fs.FileInfo, string) error { return nil }

// lock refuses: without the lock two processes would share one identity.
func lock(*os.Root, string) (*os.File, error) {
	return nil, fmt.Errorf("lock a file on this system: %w", errors.ErrUnsupported)
}
