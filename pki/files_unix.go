//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A link put in place of the file is refused by the kernel, and a pipe put in
// its place does not block the open.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// haveModes says that the mode bits of a file tell who may open it.
const haveModes = true

func checkOwner(fi fs.FileInfo, path string) error {
	stat, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the file system does not tell its owner", path)
	}
	if uid := os.Geteuid(); int(stat.Uid) != uid {
		return fmt.Errorf(`%w: %s belongs to uid %d; run "chown %d %s"`, fs.ErrPermission, path, stat.Uid, uid, path)
	}
	if !fi.IsDir() && stat.Nlink != 1 {
		return fmt.Errorf("%w: %s has %d hard links; copy it and remove the others", fs.ErrPermission, path, stat.Nlink)
	}
	return nil
}

// syncDir makes the names in a directory as durable as the files are.
func syncDir(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// lock takes the exclusive lock that a file of this name stands for, until the
// file is closed or the process ends. The file is never removed: whoever locks a
// file that was removed meanwhile would hold a lock that nobody sees.
func lock(root *os.Root, name string) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is locked", ErrLocked, filepath.Join(root.Name(), name))
		}
		return nil, fmt.Errorf("lock %s: %w", filepath.Join(root.Name(), name), err)
	}
	return f, nil
}
