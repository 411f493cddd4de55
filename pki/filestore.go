package pki

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// FileStore is a [Store] in one file, for one gateway without a database. The
// file is a journal: each update is a line that is on disk before Update
// returns. All records are in memory as well, so that a view costs no I/O. The
// journal is rewritten without what is outdated when it is opened, and later
// whenever most of it is.
//
// A crash loses at most an update that was not acknowledged. A file that is
// damaged anywhere else is refused: restore it from a backup.
type FileStore struct {
	updating sync.Mutex // held through an update, its disk writes included
	root     *os.Root
	lock     *os.File
	name     string
	journal  *journal
	broken   error // after a failure that leaves the state of the disk unknown

	reading sync.RWMutex // held while the ledger changes, never during I/O
	ledger  *ledger
}

var _ Store = (*FileStore)(nil)

// OpenFileStore opens the store at path and makes it if it does not exist; its
// directory must. It holds a lock (a file with ".lock" added to the name) until
// Close: a second process gets an error that matches [ErrLocked]. Like the
// lock, the file has mode 0600, and one that others may touch is refused.
func OpenFileStore(path string) (*FileStore, error) {
	s, err := openFileStore(path)
	if err != nil {
		return nil, fmt.Errorf("pki: store %s: %w", path, err)
	}
	return s, nil
}

func openFileStore(path string) (_ *FileStore, err error) {
	root, err := openRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	s := &FileStore{root: root, name: filepath.Base(path), ledger: newLedger()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.lock, err = lock(root, s.name+".lock"); err != nil {
		return nil, err
	}
	if err = removeTemps(root, s.name+"-"); err != nil {
		return nil, err
	}
	switch s.journal, err = openJournal(root, s.name, s.ledger.apply); {
	case errors.Is(err, fs.ErrNotExist):
		return s, s.compact()
	case err != nil:
		return nil, err
	}
	s.ledger.forget(time.Now())
	if s.journal.lines > s.ledger.size() {
		return s, s.compact()
	}
	return s, nil
}

// View runs f beside other views. It waits for no disk.
func (s *FileStore) View(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.ledger == nil {
		return fmt.Errorf("pki: store: %w", fs.ErrClosed)
	}
	return f(&ledgerTx{ledger: s.ledger, readOnly: true})
}

// Update runs f alone. If the disk fails in a way that leaves open what is on
// it, this and all later updates return an error until the store is opened
// again; views go on.
func (s *FileStore) Update(ctx context.Context, f func(Tx) error) error {
	s.updating.Lock()
	defer s.updating.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.ledger == nil {
		return fmt.Errorf("pki: store: %w", fs.ErrClosed)
	}
	if s.broken != nil {
		return s.broken
	}
	tx := &ledgerTx{ledger: s.ledger}
	if err := f(tx); err != nil || tx.change.empty() {
		return err
	}
	if err := s.journal.append(&tx.change); err != nil {
		err = fmt.Errorf("pki: store %s: %w", s.name, err)
		if s.journal.tainted {
			s.broken = fmt.Errorf("%w; open the store again", err)
		}
		return err
	}
	s.reading.Lock()
	s.ledger.apply(&tx.change)
	s.ledger.sweep(time.Now())
	s.reading.Unlock()

	if s.journal.lines >= max(minForget, 4*s.ledger.size()) {
		// The update is safe in the old journal; a full disk shows in the next.
		_ = s.compact()
	}
	return nil
}

// compact replaces the journal by one that holds the ledger and nothing else. A
// failure that leaves the old journal in place is harmless.
func (s *FileStore) compact() error {
	data, err := encodeLedger(s.ledger)
	if err != nil {
		return err
	}
	if err := writePrivate(s.root, s.name, data); err != nil {
		if !s.journal.is(s.root, s.name) {
			s.broken = fmt.Errorf("pki: store %s: %w; open the store again", s.name, err)
		}
		return err
	}
	fresh, err := openJournal(s.root, s.name, func(*change) {})
	if err != nil {
		s.broken = fmt.Errorf("pki: store %s: %w; open the store again", s.name, err)
		return err
	}
	if s.journal != nil {
		s.journal.close()
	}
	s.journal = fresh
	return nil
}

// Close ends the store and releases the lock. Later calls return an error that
// matches fs.ErrClosed.
func (s *FileStore) Close() error {
	s.updating.Lock()
	defer s.updating.Unlock()
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.ledger == nil {
		return nil
	}
	s.ledger = nil
	var err error
	if s.journal != nil {
		err = s.journal.close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return errors.Join(err, s.root.Close())
}
