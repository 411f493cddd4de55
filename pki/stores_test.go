package pki_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/pki/pkitest"
)

func TestMemoryStorePassesTheSuite(t *testing.T) {
	pkitest.TestStore(t, func(*testing.T) pki.Store { return new(pki.MemoryStore) })
}

func TestFileStorePassesTheSuite(t *testing.T) {
	pkitest.TestStore(t, func(t *testing.T) pki.Store {
		return openStore(t, filepath.Join(t.TempDir(), "registry"))
	})
}

func TestFileStoreIsDurable(t *testing.T) {
	pkitest.TestDurableStore(t, func(t *testing.T) func() pki.Store {
		path := filepath.Join(t.TempDir(), "registry")
		var last *pki.FileStore
		return func() pki.Store {
			if last != nil {
				require.NoError(t, last.Close())
			}
			last = openStore(t, path)
			return last
		}
	})
}

func TestMemoryStoragePassesTheSuite(t *testing.T) {
	pkitest.TestStorage(t, func(*testing.T) pki.Storage { return new(pki.MemoryStorage) })
}

func TestFileStoragePassesTheSuite(t *testing.T) {
	pkitest.TestStorage(t, func(t *testing.T) pki.Storage {
		return openStorage(t, filepath.Join(t.TempDir(), "agent"))
	})
}

func openStore(t testing.TB, path string) *pki.FileStore {
	t.Helper()
	s, err := pki.OpenFileStore(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func openStorage(t testing.TB, dir string) *pki.FileStorage {
	t.Helper()
	s, err := pki.OpenFileStorage(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
