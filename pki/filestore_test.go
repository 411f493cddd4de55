package pki_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func putGrant(s pki.Store, id string, change func(*pki.GrantRecord)) error {
	return s.Update(context.Background(), func(tx pki.Tx) error {
		g := pki.GrantRecord{ID: id, Created: time.Unix(1<<30, 0).UTC(), Forget: time.Now().Add(time.Hour)}
		if change != nil {
			change(&g)
		}
		return tx.PutGrant(g)
	})
}

func grantsIn(t testing.TB, s pki.Store) (ids []string) {
	t.Helper()
	require.NoError(t, s.View(t.Context(), func(tx pki.Tx) error {
		all, err := tx.Grants("")
		for _, g := range all {
			ids = append(ids, g.ID)
		}
		return err
	}))
	return ids
}

// reopen opens a copy of a store's file as a crash would have left it.
func reopen(t testing.TB, data []byte) (*pki.FileStore, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registry")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return pki.OpenFileStore(path)
}

// At whatever byte a crash cuts the file, the updates before are there and the
// store goes on.
func TestFileStoreRecoversFromATornTailAtEveryByte(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	s := openStore(t, path)
	header, err := os.ReadFile(path)
	require.NoError(t, err)
	ends := []int{len(header)} // of each update
	const updates = 2
	for i := range updates {
		require.NoError(t, putGrant(s, fmt.Sprint(i), nil))
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		ends = append(ends, len(data))
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for cut := len(header); cut <= len(data); cut++ {
		whole := 0
		for whole < updates && ends[whole+1] <= cut {
			whole++
		}
		check := func(damaged []byte, what string) {
			again, err := reopen(t, damaged)
			require.NoError(t, err, "%s at %d", what, cut)
			defer again.Close()
			require.Len(t, grantsIn(t, again), whole, "%s at %d", what, cut)
			require.NoError(t, putGrant(again, "after", nil))
			require.Len(t, grantsIn(t, again), whole+1)
		}
		check(data[:cut], "cut")
		if rest := len(data) - cut; cut != ends[whole] || rest == 0 {
			continue
		}
		// The file has its new length and not yet its new content.
		next := ends[whole+1]
		zeros := append(bytes.Clone(data[:cut]), make([]byte, next-cut)...)
		check(zeros, "zeros")
		zeros[len(zeros)-1] = '\n'
		check(zeros, "zeros and the newline")
	}
	for cut := range header {
		_, err := reopen(t, data[:cut])
		require.ErrorContains(t, err, "not a journal", "the header is written in one piece")
	}
}

func TestFileStoreKeepsWhatARecoveryLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	s, err := pki.OpenFileStore(path)
	require.NoError(t, err)
	require.NoError(t, putGrant(s, "kept", nil))
	require.NoError(t, s.Close())
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintf(f, "0123abcd 00001000 {%01000d", 0) // longer than what will be written over it
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for i := range 3 {
		s, err := pki.OpenFileStore(path)
		require.NoError(t, err)
		require.Len(t, grantsIn(t, s), 1+i)
		require.NoError(t, putGrant(s, fmt.Sprint(i), nil))
		require.NoError(t, s.Close())
	}
}

func TestFileStoreRefusesADamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	s := openStore(t, path)
	header, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, putGrant(s, "one", nil))
	require.NoError(t, putGrant(s, "two", nil))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	line := bytes.IndexByte(good[len(header):], '\n') + 1

	for at := range len(header) + line {
		damaged := bytes.Clone(good)
		damaged[at] ^= 1
		_, err := reopen(t, damaged)
		require.Error(t, err, "byte %d", at)
	}
	for name, data := range map[string][]byte{
		"another file":     []byte("root:x:0:0:root:/root:/bin/sh\n"),
		"an empty file":    {},
		"a later version":  []byte("outgate pki journal 2\n"),
		"an unknown shape": append(bytes.Clone(header), "764dbd76 00000002 []\n"...),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "registry")
			require.NoError(t, os.WriteFile(path, data, 0o600))
			_, err := pki.OpenFileStore(path)
			require.Error(t, err)
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(data), string(left))
		})
	}
}

func TestFileStoreServesOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	first, err := pki.OpenFileStore(path)
	require.NoError(t, err)
	_, err = pki.OpenFileStore(path)
	require.ErrorIs(t, err, pki.ErrLocked)
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	require.ErrorIs(t, putGrant(first, "late", nil), fs.ErrClosed)
	require.ErrorIs(t, first.View(t.Context(), func(pki.Tx) error { return nil }), fs.ErrClosed)
	openStore(t, path)
}

func TestFileStoreRefusesAFileThatOthersTouch(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, path string){
		"readable": func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o644)) },
		"a link": func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".real"))
			require.NoError(t, os.Symlink(path+".real", path))
		},
		"a link to nothing": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(path+".real", path))
		},
		"a directory": func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "registry")
			s, err := pki.OpenFileStore(path)
			require.NoError(t, err)
			require.NoError(t, s.Close())
			put(t, path)
			_, err = pki.OpenFileStore(path)
			require.ErrorContains(t, err, path)
		})
	}
	t.Run("without a directory", func(t *testing.T) {
		_, err := pki.OpenFileStore(filepath.Join(t.TempDir(), "no", "registry"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

// The file stays in proportion to what is in it, while it is open and when it is
// opened, and what may be forgotten is.
func TestFileStoreIsCompacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry")
	s, err := pki.OpenFileStore(path)
	require.NoError(t, err)
	require.NoError(t, putGrant(s, "kept", nil))
	require.NoError(t, putGrant(s, "old", func(g *pki.GrantRecord) { g.Forget = time.Now().Add(-time.Second) }))
	largest := int64(0)
	for i := range 1500 {
		require.NoError(t, putGrant(s, "busy", func(g *pki.GrantRecord) { g.WrongSecrets = i }))
		fi, err := os.Stat(path)
		require.NoError(t, err)
		largest = max(largest, fi.Size())
	}
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, before.Size(), largest, "it has shrunk on the way")
	require.NoError(t, s.Close())

	s = openStore(t, path)
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, after.Size(), int64(1000))
	require.Equal(t, []string{"busy", "kept"}, grantsIn(t, s))
	require.NoError(t, s.View(t.Context(), func(tx pki.Tx) error {
		g, err := tx.Grant("busy")
		require.Equal(t, 1499, g.WrongSecrets)
		return err
	}))
}

// An authority over a FileStore that is opened again remembers everything that
// was acknowledged.
func TestWhatWasAcknowledgedIsDurable(t *testing.T) {
	a, _ := newAuthority(t)
	path := filepath.Join(t.TempDir(), "registry")
	restart := func() *pki.FileStore {
		s, err := pki.OpenFileStore(path)
		require.NoError(t, err)
		a.Store = s
		return s
	}
	s := restart()
	token, key := grant(t, a, pki.Grant{Agent: "edge"}), newKey(t)
	require.NoError(t, s.Close())
	s = restart()
	first, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s = restart()
	again, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	s = restart()
	defer s.Close()
	require.ErrorIs(t, a.Verify(t.Context(), leafOf(t, first)), pki.ErrRevoked)
	_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
	requireRefused(t, err)
}

func TestMemoryStoreForgets(t *testing.T) {
	s := new(pki.MemoryStore)
	for i := range 5000 {
		require.NoError(t, putGrant(s, fmt.Sprint(i), func(g *pki.GrantRecord) { g.Forget = time.Now().Add(-time.Second) }))
	}
	require.Less(t, len(grantsIn(t, s)), 1100)
	for i := range 5000 {
		require.NoError(t, putGrant(s, fmt.Sprint("kept", i), nil))
	}
	require.GreaterOrEqual(t, len(grantsIn(t, s)), 5000)
}

func FuzzOpenFileStore(f *testing.F) {
	path := filepath.Join(f.TempDir(), "registry")
	s, err := pki.OpenFileStore(path)
	require.NoError(f, err)
	require.NoError(f, putGrant(s, "one", nil))
	require.NoError(f, s.Close())
	good, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(good)
	f.Add(append(bytes.Clone(good), "00000000 {}\n"...))
	f.Add(good[:len(good)-3])
	f.Add([]byte("outgate pki journal 1\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := reopen(t, data)
		if err != nil {
			if errors.Is(err, pki.ErrLocked) {
				t.Error("locked by nobody")
			}
			return
		}
		before := grantsIn(t, s)
		if err := putGrant(s, "new", nil); err != nil {
			t.Errorf("opened, and takes nothing: %v", err)
		}
		if after := grantsIn(t, s); len(after) < len(before) {
			t.Errorf("%d grants became %d", len(before), len(after))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
