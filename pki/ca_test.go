package pki_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestTheAuthorityIsTheSameAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	signer, cert, err := pki.LoadOrCreateCA(t.Context(), dir, "example.com")
	require.NoError(t, err)
	again, sameCert, err := pki.LoadOrCreateCA(t.Context(), dir, "ignored")
	require.NoError(t, err)
	require.Equal(t, signer.Public(), again.Public())
	require.Equal(t, cert.Raw, sameCert.Raw)
	for _, name := range []string{"ca.key", "ca.crt"} {
		fi, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.EqualValues(t, 0o600, fi.Mode().Perm())
	}
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.EqualValues(t, 0o700, fi.Mode().Perm())
}

func TestACrashBetweenTheFilesOfAnAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	signer, _, err := pki.LoadOrCreateCA(t.Context(), dir, "example.com")
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "ca.crt")))
	again, cert, err := pki.LoadOrCreateCA(t.Context(), dir, "example.com")
	require.NoError(t, err)
	require.Equal(t, signer.Public(), again.Public())
	require.Equal(t, signer.Public(), cert.PublicKey)
}

func TestAnAuthorityIsNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, key, crt string){
		"its key is lost":          func(t *testing.T, key, _ string) { require.NoError(t, os.Remove(key)) },
		"its key is damaged":       func(t *testing.T, key, _ string) { require.NoError(t, os.WriteFile(key, []byte("x"), 0o600)) },
		"its key is empty":         func(t *testing.T, key, _ string) { require.NoError(t, os.Truncate(key, 0)) },
		"its certificate is empty": func(t *testing.T, _, crt string) { require.NoError(t, os.Truncate(crt, 0)) },
		"its key is readable":      func(t *testing.T, key, _ string) { require.NoError(t, os.Chmod(key, 0o644)) },
		"its key is another's": func(t *testing.T, key, _ string) {
			other := filepath.Join(t.TempDir(), "other")
			_, _, err := pki.LoadOrCreateCA(t.Context(), other, "")
			require.NoError(t, err)
			require.NoError(t, os.Rename(filepath.Join(other, "ca.key"), key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			_, _, err := pki.LoadOrCreateCA(t.Context(), dir, "")
			require.NoError(t, err)
			key, crt := filepath.Join(dir, "ca.key"), filepath.Join(dir, "ca.crt")
			before, err := os.ReadFile(crt)
			require.NoError(t, err)
			damage(t, key, crt)
			_, _, err = pki.LoadOrCreateCA(t.Context(), dir, "")
			require.ErrorContains(t, err, dir)
			after, err := os.ReadFile(crt)
			require.NoError(t, err)
			if len(after) > 0 {
				require.Equal(t, before, after)
			}
		})
	}
}
