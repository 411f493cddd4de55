package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	openFlags = 0

	// haveModes: what Go shows as a mode here is made up. Who may open a file is
	// for the access control list that it inherits from its directory.
	haveModes = false

	errorSharingViolation syscall.Errno = 32 // ERROR_SHARING_VIOLATION
)

func checkOwner(fs.FileInfo, string) error { return nil }

// syncDir has nothing to do: NTFS keeps a journal of its names, and no handle of
// a directory that we can get may be flushed.
func syncDir(*os.Root) error { return nil }

// lock opens a file in a way that lets nobody else open it, until it is closed or
// the process ends. The file is never removed, as on other systems.
func lock(root *os.Root, name string) (*os.File, error) {
	path := filepath.Join(root.Name(), name)
	utf16, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	const shareWithNobody = 0
	handle, err := syscall.CreateFile(utf16, syscall.GENERIC_READ|syscall.GENERIC_WRITE, shareWithNobody, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL|syscall.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if errors.Is(err, errorSharingViolation) {
		return nil, fmt.Errorf("%w: %s is locked", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return os.NewFile(uintptr(handle), path), nil
}
