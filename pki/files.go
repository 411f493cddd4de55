package pki

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const tempPrefix = ".tmp-"

// openRoot opens the directory that private files live in. The handle stays on
// this very directory, whatever is renamed over its path later.
func openRoot(dir string) (*os.Root, error) {
	before, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("%s is not a directory (%s); use the real path", dir, before.Mode().Type())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened", dir)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// openPrivate opens an existing file that only its owner may touch. A link, a
// pipe or a file that others can read is refused.
func openPrivate(root *os.Root, name string, flag int) (*os.File, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root.Name(), name)
	if err := checkPrivate(before, path); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, flag|openFlags, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened", path)
	}
	if err == nil {
		err = checkPrivate(after, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkPrivate(fi fs.FileInfo, path string) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file (%s); remove it", path, fi.Mode().Type())
	}
	if perm := fi.Mode().Perm(); haveModes && perm&0o077 != 0 {
		return fmt.Errorf(`%w: %s has mode %04o; run "chmod 600 %s"`, fs.ErrPermission, path, perm, path)
	}
	return checkOwner(fi, path)
}

func checkPrivateDir(fi fs.FileInfo, path string) error {
	if perm := fi.Mode().Perm(); haveModes && perm != 0o700 {
		return fmt.Errorf(`%w: %s has mode %04o; run "chmod 700 %s"`, fs.ErrPermission, path, perm, path)
	}
	return checkOwner(fi, path)
}

// explainDisk adds what to do to an error of the file system under dir.
func explainDisk(err error, dir string) error {
	switch {
	case errors.Is(err, ErrLocked):
		return fmt.Errorf("%w; stop that process, or give each a directory of its own", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w; make room on the file system of %s", err, dir)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount the file system of %s writable, or name another directory", err, dir)
	}
	return err
}

// readPrivate reads a whole file of at most limit bytes.
func readPrivate(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openPrivate(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.Name(), limit)
	}
	return data, nil
}

// writePrivate replaces a file as a whole: after a crash at any point there is
// the old content or the new one. When it returns nil, the new one is on disk.
func writePrivate(root *os.Root, name string, data []byte) (err error) {
	var random [8]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	temp := tempPrefix + name + "-" + hex.EncodeToString(random[:])
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return syncDir(root)
}

// removeTemps clears what a crash inside writePrivate left of the files whose
// names begin like this. The caller holds their lock, so that nobody is inside.
func removeTemps(root *os.Root, name string) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix+name) {
			if err := root.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
