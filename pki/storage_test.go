//go:build unix

package pki_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestFileStorageRefusesADirectoryThatIsNotItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(t *testing.T, dir string)
		reason string
	}{
		"readable by others":  {func(t *testing.T, dir string) { mkdir(t, dir, 0o755) }, `run "chmod 700 `},
		"readable by a group": {func(t *testing.T, dir string) { mkdir(t, dir, 0o750) }, `run "chmod 700 `},
		"writable by others":  {func(t *testing.T, dir string) { mkdir(t, dir, 0o702) }, `run "chmod 700 `},
		"not writable":        {func(t *testing.T, dir string) { mkdir(t, dir, 0o500) }, `run "chmod 700 `},
		"a file":              {func(t *testing.T, dir string) { require.NoError(t, os.WriteFile(dir, nil, 0o600)) }, "not a directory"},
		"a pipe":              {func(t *testing.T, dir string) { require.NoError(t, syscall.Mkfifo(dir, 0o600)) }, "not a directory"},
		"a link": {func(t *testing.T, dir string) {
			mkdir(t, dir+".real", 0o700)
			require.NoError(t, os.Symlink(dir+".real", dir))
		}, "use the real path"},
		"a link to nothing": {func(t *testing.T, dir string) { require.NoError(t, os.Symlink(dir+".real", dir)) }, "use the real path"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "agent")
			c.make(t, dir)
			_, err := pki.OpenFileStorage(dir)
			require.ErrorContains(t, err, c.reason)
			require.ErrorContains(t, err, dir)
		})
	}
	t.Run("without a parent", func(t *testing.T) {
		_, err := pki.OpenFileStorage(filepath.Join(t.TempDir(), "no", "agent"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func mkdir(t *testing.T, dir string, mode fs.FileMode) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Chmod(dir, mode))
}

// untrusted are things that can be where a file should be, and what is said of
// them.
var untrusted = map[string]struct {
	put    func(t *testing.T, path string)
	reason string
}{
	"readable by others":  {func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o604)) }, `run "chmod 600 `},
	"readable by a group": {func(t *testing.T, path string) { require.NoError(t, os.Chmod(path, 0o640)) }, `run "chmod 600 `},
	"a link": {func(t *testing.T, path string) {
		require.NoError(t, os.Rename(path, path+".real"))
		require.NoError(t, os.Symlink(filepath.Base(path)+".real", path))
	}, "not a regular file"},
	"a link out of there": {func(t *testing.T, path string) {
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Symlink("/etc/passwd", path))
	}, "not a regular file"},
	"a hard link": {func(t *testing.T, path string) { require.NoError(t, os.Link(path, path+".2")) }, "hard links"},
	"a pipe": {func(t *testing.T, path string) {
		require.NoError(t, os.Remove(path))
		require.NoError(t, syscall.Mkfifo(path, 0o600))
	}, "not a regular file"},
	"a directory": {func(t *testing.T, path string) {
		require.NoError(t, os.Remove(path))
		mkdir(t, path, 0o700)
	}, "not a regular file"},
	"too large": {func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 1<<20+1)) }, "larger than"},
}

func TestFileStorageRefusesAFileThatIsNotItsOwn(t *testing.T) {
	for name, c := range untrusted {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "agent")
			s := openStorage(t, dir)
			require.NoError(t, s.Save(t.Context(), "key", []byte("secret")))
			c.put(t, filepath.Join(dir, "key"))
			data, err := s.Load(t.Context(), "key")
			require.ErrorContains(t, err, c.reason)
			require.Empty(t, data)
		})
	}
}

// An identity that cannot be trusted is no reason to get another one: the owner
// of the machine decides. The file, the token and the gateway are left alone.
func TestAnIdentityThatIsNotItsOwnIsNotReplaced(t *testing.T) {
	a, _ := newAuthority(t)
	for name, c := range untrusted {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "agent")
			s := openStorage(t, dir)
			_, err := pki.Enroll(t.Context(), s, a, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.NoError(t, err)
			path := filepath.Join(dir, "identity")
			c.put(t, path)
			before, err := os.Lstat(path)
			require.NoError(t, err)

			asked := &script{Registrar: a}
			_, err = pki.Enroll(t.Context(), s, asked, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.ErrorContains(t, err, c.reason)
			require.Empty(t, asked.asked)
			after, err := os.Lstat(path)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
			require.Equal(t, before.ModTime(), after.ModTime())
		})
	}
}

func TestFileStorageReplacesALinkInsteadOfFollowingIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	s := openStorage(t, dir)
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	require.NoError(t, os.Symlink(victim, filepath.Join(dir, "key")))
	require.NoError(t, s.Save(t.Context(), "key", []byte("secret")))
	data, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(data))
	data, err = s.Load(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, "secret", string(data))
}

func TestFileStorageServesOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	first, err := pki.OpenFileStorage(dir)
	require.NoError(t, err)
	_, err = pki.OpenFileStorage(dir)
	require.ErrorIs(t, err, pki.ErrLocked)
	require.ErrorContains(t, err, "a directory of its own")
	_, _, err = pki.LoadOrCreateCA(t.Context(), dir, "")
	require.ErrorIs(t, err, pki.ErrLocked)
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	require.ErrorIs(t, first.Save(t.Context(), "key", nil), fs.ErrClosed)
	_, err = first.Load(t.Context(), "key")
	require.ErrorIs(t, err, fs.ErrClosed)
	openStorage(t, dir)
}

func TestFileStorageIsPrivateAndLeavesNothingBehind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	s, err := pki.OpenFileStorage(dir)
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), "key", []byte("one")))
	require.NoError(t, s.Save(t.Context(), "key", []byte("two")))
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".tmp-0123"), []byte("half"), 0o600)) // a crash
	openStorage(t, dir)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		fi, err := e.Info()
		require.NoError(t, err)
		require.EqualValues(t, 0o600, fi.Mode(), e.Name())
		names = append(names, e.Name())
	}
	require.Equal(t, []string{".lock", "key"}, names)
}

func TestABlobThatIsTooLargeLeavesTheOldOne(t *testing.T) {
	s := openStorage(t, filepath.Join(t.TempDir(), "agent"))
	require.NoError(t, s.Save(t.Context(), "key", []byte("old")))
	require.ErrorContains(t, s.Save(t.Context(), "key", make([]byte, 1<<20+1)), "at most")
	data, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, "old", string(data))
}
