package pki

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Storage keeps an agent's key and certificate: a few small blobs by name. It
// belongs to one agent; an implementation that several processes could open
// refuses the second. Names are 1 to 64 lower-case letters, digits, dashes and
// dots, the first a letter or digit. All methods may be called concurrently.
type Storage interface {
	// Load returns a blob as a whole, or an error that matches fs.ErrNotExist.
	Load(ctx context.Context, name string) ([]byte, error)

	// Save replaces a blob as a whole: a crash at any point leaves the old one
	// or the new one. When Save returns nil, the new one survives a crash of
	// the machine. After an error either may be there.
	Save(ctx context.Context, name string, data []byte) error

	// Delete removes a blob. That it is not there is no error.
	Delete(ctx context.Context, name string) error
}

// maxBlob bounds what a FileStorage reads back: an identity is a few kilobytes.
const maxBlob = 1 << 20

// CheckBlobName returns an error for a name that no [Storage] takes. It is for
// those who write one.
func CheckBlobName(name string) error {
	ok := len(name) >= 1 && len(name) <= 64 && name[0] != '.' && name[0] != '-'
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.')
	}
	if !ok {
		return fmt.Errorf("pki: storage: name %.80q is not of 1 to 64 letters a-z, digits, dashes and dots", name)
	}
	return nil
}

func checkBlob(name string, data []byte) error {
	if err := CheckBlobName(name); err != nil {
		return err
	}
	if len(data) > maxBlob {
		return fmt.Errorf("pki: storage: %s is %d bytes; at most %d", name, len(data), maxBlob)
	}
	return nil
}

// MemoryStorage is a [Storage] that ends with the process: for tests, and for
// agents that enrol at every start. The zero value is ready to use.
type MemoryStorage struct {
	mu    sync.Mutex
	blobs map[string][]byte
}

var (
	_ Storage = (*MemoryStorage)(nil)
	_ Storage = (*FileStorage)(nil)
)

// Load returns a copy of a blob.
func (s *MemoryStorage) Load(ctx context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.blobs[name]
	if !ok {
		return nil, fmt.Errorf("pki: storage: %s: %w", name, fs.ErrNotExist)
	}
	return bytes.Clone(data), ctx.Err()
}

// Save keeps a copy of data.
func (s *MemoryStorage) Save(ctx context.Context, name string, data []byte) error {
	if err := checkBlob(name, data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = make(map[string][]byte)
	}
	s.blobs[name] = bytes.Clone(data)
	return nil
}

// Delete forgets a blob.
func (s *MemoryStorage) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, name)
	return nil
}

// FileStorage is a [Storage] in a directory of its own: one file of mode 0600
// for each blob, replaced by rename after it was written out. It refuses links,
// special files, files of other users and files that others may read, and says
// how to put it right.
type FileStorage struct {
	mu   sync.Mutex
	root *os.Root
	lock *os.File
}

// OpenFileStorage opens the storage in dir and makes dir, with mode 0700, if it
// does not exist; its parent must. It holds a lock until Close: a second process
// gets an error that matches [ErrLocked].
//
// Windows has no modes: there the directory's access control list decides, which
// dir inherits from its parent. Choose a parent that only the service's account
// may read, such as a profile and not %ProgramData%.
func OpenFileStorage(dir string) (*FileStorage, error) {
	s, err := openFileStorage(dir)
	if err != nil {
		return nil, fmt.Errorf("pki: storage: %w", explainDisk(err, dir))
	}
	return s, nil
}

func openFileStorage(dir string) (_ *FileStorage, err error) {
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return nil, err
	default:
		parent, err := os.OpenRoot(filepath.Dir(filepath.Clean(dir)))
		if err != nil {
			return nil, err
		}
		err = syncDir(parent)
		parent.Close()
		if err != nil {
			return nil, err
		}
	}
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &FileStorage{root: root}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	fi, err := root.Stat(".")
	if err != nil {
		return nil, err
	}
	if err := checkPrivateDir(fi, dir); err != nil {
		return nil, err
	}
	if s.lock, err = lock(root, ".lock"); err != nil {
		return nil, err
	}
	return s, removeTemps(root, "")
}

// Load reads a blob of at most 1 MiB.
func (s *FileStorage) Load(ctx context.Context, name string) ([]byte, error) {
	if err := s.enter(ctx, name, nil); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	data, err := readPrivate(s.root, name, maxBlob)
	if err != nil {
		return nil, fmt.Errorf("pki: storage: %w", err)
	}
	return data, nil
}

// Save writes a blob of at most 1 MiB.
func (s *FileStorage) Save(ctx context.Context, name string, data []byte) error {
	if err := s.enter(ctx, name, data); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := writePrivate(s.root, name, data); err != nil {
		return fmt.Errorf("pki: storage: save %s: %w", name, explainDisk(err, s.root.Name()))
	}
	return nil
}

// Delete removes a blob.
func (s *FileStorage) Delete(ctx context.Context, name string) error {
	if err := s.enter(ctx, name, nil); err != nil {
		return err
	}
	defer s.mu.Unlock()
	err := s.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(s.root)
	}
	if err != nil {
		return fmt.Errorf("pki: storage: delete %s: %w", name, err)
	}
	return nil
}

// enter locks s unless the call cannot go on.
func (s *FileStorage) enter(ctx context.Context, name string, data []byte) error {
	if err := checkBlob(name, data); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.root == nil {
		s.mu.Unlock()
		return fmt.Errorf("pki: storage: %w", fs.ErrClosed)
	}
	return nil
}

// Close releases the lock. Later calls of the other methods return an error that
// matches fs.ErrClosed.
func (s *FileStorage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root == nil {
		return nil
	}
	err := s.root.Close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	s.root, s.lock = nil, nil
	return err
}
