package pki

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func putOne(s Store, id string) error {
	return s.Update(context.Background(), func(tx Tx) error { return tx.PutGrant(GrantRecord{ID: id}) })
}

// After a write whose outcome is unknown nothing more is acknowledged, and what
// was before is there when the store is opened again.
func TestAFileStoreWhoseDiskFailsStopsToAcknowledge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	s, err := OpenFileStore(path)
	require.NoError(t, err)
	require.NoError(t, putOne(s, "kept"))

	writable := s.journal.file
	readOnly, err := os.Open(path)
	require.NoError(t, err)
	s.journal.file = readOnly
	require.Error(t, putOne(s, "lost"))
	s.journal.file = writable
	require.ErrorContains(t, putOne(s, "later"), "open the store again")
	require.NoError(t, s.View(t.Context(), func(tx Tx) error {
		all, err := tx.Grants("")
		require.Len(t, all, 1)
		return err
	}))
	require.NoError(t, readOnly.Close())
	require.NoError(t, s.Close())

	s, err = OpenFileStore(path)
	require.NoError(t, err)
	require.NoError(t, putOne(s, "later"))
	require.NoError(t, s.Close())
}

// A journal that was taken away is noticed when it would be rewritten.
func TestAFileStoreWhoseFileIsGoneStops(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenFileStore(filepath.Join(dir, "registry"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, os.RemoveAll(dir))
	s.journal.lines = minForget
	require.NoError(t, putOne(s, "written to a file without a name"))
	require.ErrorContains(t, putOne(s, "later"), "open the store again")
}
