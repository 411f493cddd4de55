package pki_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// ownMounts runs the test again in a process that may mount what it likes, and
// reports whether this is that process.
func ownMounts(t *testing.T) bool {
	t.Helper()
	const inside = "OUTGATE_TEST_OWN_MOUNTS"
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) && !exhaustive() {
		t.Skipf("this process may make no mount namespace: %v", err)
	}
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}

// mount makes a file system of 1 MiB.
func mount(t *testing.T) string {
	t.Helper()
	require.NoError(t, syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill leaves no more than room bytes on the file system of dir.
func fill(t *testing.T, dir string, room int64) (path string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	fi, err := f.Stat()
	require.NoError(t, err)
	require.NoError(t, f.Truncate(fi.Size()-room))
	return f.Name()
}

func TestAFullDiskLeavesTheOldIdentity(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	for name, room := range map[string]int64{"not a byte": 0, "half of what it takes": 4096} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			disk := mount(t)
			dir := filepath.Join(disk, "agent")
			storage := openStorage(t, dir)
			a, _ := newAuthority(t)
			e := &pki.Enroller{Storage: storage, Registrar: a}
			clock := new(machine)
			e.SetClock(clock.now)
			identity, err := e.Enroll(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
			require.NoError(t, err)
			filler := fill(t, disk, room)

			err = storage.Save(t.Context(), "identity", bytes.Repeat([]byte("x"), 8192))
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.ErrorContains(t, err, "make room on the file system of "+dir)
			stored, err := pki.Load(t.Context(), storage)
			require.NoError(t, err)
			require.Equal(t, identity.Status().Serial, stored.Status().Serial)
			require.Equal(t, []string{".lock", "identity"}, (&agentCommand{dir: dir}).files(t))

			if room == 0 {
				// A renewal does not even begin: its key has no place to be.
				clock.set(65 * day)
				asked := &renewals{Registrar: a}
				run(t, identity, asked)
				require.Eventually(t, func() bool { return identity.Status().Failure != nil }, time.Minute, time.Millisecond)
				require.ErrorIs(t, identity.Status().Failure, syscall.ENOSPC)
				require.Zero(t, asked.count())
			}
			require.NoError(t, os.Remove(filler))
			require.NoError(t, storage.Save(t.Context(), "other", bytes.Repeat([]byte("x"), 8192)))
		})
	}
}

func TestAReadOnlyDiskLeavesTheOldIdentity(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	disk := mount(t)
	dir := filepath.Join(disk, "agent")
	storage, err := pki.OpenFileStorage(dir)
	require.NoError(t, err)
	a, _ := newAuthority(t)
	_, err = pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
	require.NoError(t, err)
	require.NoError(t, storage.Close())

	require.NoError(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for _, path := range []string{dir, filepath.Join(disk, "new")} {
		_, err = pki.OpenFileStorage(path)
		require.ErrorIs(t, err, syscall.EROFS)
		require.ErrorContains(t, err, "mount the file system of "+path+" writable")
	}
	require.NoError(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT, ""))
	identity, err := pki.Load(t.Context(), openStorage(t, dir))
	require.NoError(t, err)
	require.Equal(t, "edge", identity.Agent())
}

func TestFilesOfAnotherUserAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := filepath.Join(t.TempDir(), "agent")
	storage, err := pki.OpenFileStorage(dir)
	require.NoError(t, err)
	require.NoError(t, storage.Save(t.Context(), "identity", []byte("secret")))
	require.NoError(t, os.Chown(filepath.Join(dir, "identity"), 12345, 12345))
	_, err = pki.Load(t.Context(), storage)
	require.ErrorContains(t, err, `run "chown 0 `+filepath.Join(dir, "identity")+`"`)
	require.NoError(t, storage.Close())
	require.NoError(t, os.Chown(dir, 12345, 12345))
	_, err = pki.OpenFileStorage(dir)
	require.ErrorContains(t, err, `run "chown 0 `+dir+`"`)
}
