package policy_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

const (
	allowDB  = "enable_access_restrictions: true\nallowed_endpoints: [db:5432]\n"
	allowWeb = "enable_access_restrictions: true\nallowed_endpoints: [web:80]\n"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// follow runs f until the test ends. Use it inside a bubble.
func follow(t *testing.T, f *policy.File) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel(fs.ErrClosed)
		require.ErrorIs(t, <-done, fs.ErrClosed)
	})
	synctest.Wait()
}

// settle lets Run look twice.
func settle() {
	time.Sleep(1010 * time.Millisecond)
	synctest.Wait()
}

func allows(t *testing.T, p policy.Policy, target string) bool {
	t.Helper()
	return p.Authorize(t.Context(), ask(t, target)) == nil
}

func TestAFileDeniesEverythingUntilItIsLoaded(t *testing.T) {
	f := &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml")}
	require.ErrorIs(t, f.Authorize(t.Context(), ask(t, "tcp db:5432")), transport.Denied)
	require.Equal(t, policy.FileStatus{}, f.Status())
	err := f.Reload()
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, policy.FileStatus{Err: err, Failures: 1}, f.Status())
	require.False(t, allows(t, f, "tcp db:5432"))

	write(t, f.Path, allowDB)
	require.NoError(t, f.Reload())
	require.True(t, allows(t, f, "tcp db:5432"))
	st := f.Status()
	require.Equal(t, f.Digest(), st.Digest)
	require.NoError(t, st.Err)
	require.WithinDuration(t, time.Now(), st.Since, time.Minute)
}

func TestAFileFollowsItsContent(t *testing.T) {
	replace := map[string]func(t *testing.T, dir, path, text string){
		"written in place": func(t *testing.T, _, path, text string) { write(t, path, text) },
		"renamed over": func(t *testing.T, dir, path, text string) {
			write(t, filepath.Join(dir, "new"), text)
			require.NoError(t, os.Rename(filepath.Join(dir, "new"), path))
		},
		"the same size and time": func(t *testing.T, _, path, text string) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			write(t, path, text+strings.Repeat("#", max(0, int(info.Size())-len(text))))
			require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"removed and written": func(t *testing.T, _, path, text string) {
			require.NoError(t, os.Remove(path))
			settle()
			write(t, path, text)
		},
	}
	for name, change := range replace {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				f := &policy.File{Path: filepath.Join(dir, "policy.yaml")}
				write(t, f.Path, allowDB)
				follow(t, f)
				require.True(t, allows(t, f, "tcp db:5432"), "loaded by the first look")
				change(t, dir, f.Path, allowWeb)
				settle()
				require.False(t, allows(t, f, "tcp db:5432"))
				require.True(t, allows(t, f, "tcp web:80"))
				require.EqualValues(t, 2, f.Status().Reloads)
				require.NoError(t, f.Status().Err)
			})
		})
	}
}

// Kubernetes mounts a ConfigMap as policy.yaml -> ..data/policy.yaml and
// ..data -> a directory, and replaces the link ..data.
func TestAFileFollowsAConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		publish := func(version, text string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
			write(t, filepath.Join(dir, version, "policy.yaml"), text)
			require.NoError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
			require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		}
		publish("..1", allowDB)
		f := &policy.File{Path: filepath.Join(dir, "policy.yaml")}
		require.NoError(t, os.Symlink(filepath.Join("..data", "policy.yaml"), f.Path))
		follow(t, f)
		require.True(t, allows(t, f, "tcp db:5432"))
		publish("..2", allowWeb)
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "..1")))
		settle()
		require.True(t, allows(t, f, "tcp web:80"))
		require.False(t, allows(t, f, "tcp db:5432"))
	})
}

func TestABrokenFileLeavesThePolicyInForceAndSaysSo(t *testing.T) {
	for name, broken := range map[string]string{
		"not YAML":     "enable_access_restrictions: [",
		"unknown key":  "enable_access_restrictions: true\nallow: [db]\n",
		"empty":        "",
		"too large":    allowDB + strings.Repeat("#", policy.MaxDocument),
		"cut in place": "enable_access_restrictions: true\nallowed_endp",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				f := &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml"), Logger: slog.New(slog.NewTextHandler(&log, nil))}
				changes := 0
				defer f.OnChange(func() { changes++ })()
				write(t, f.Path, allowDB)
				follow(t, f)
				before := f.Status()
				write(t, f.Path, broken)
				for range 5 {
					settle()
				}
				require.True(t, allows(t, f, "tcp db:5432"))
				st := f.Status()
				var bad *policy.SyntaxError
				require.ErrorAs(t, st.Err, &bad)
				require.ErrorContains(t, st.Err, f.Path)
				require.Equal(t, before.Digest, st.Digest)
				require.Equal(t, before.Since, st.Since)
				require.EqualValues(t, 1, st.Failures, "counted once, not at every look")
				require.Equal(t, 1, strings.Count(log.String(), "the policy before stays in force"), "%s", &log)
				require.ErrorIs(t, f.Reload(), st.Err)
				require.Equal(t, 1, changes)

				write(t, f.Path, allowDB)
				settle()
				st = f.Status()
				require.NoError(t, st.Err)
				require.EqualValues(t, 2, st.Reloads)
				require.Equal(t, 1, changes, "the same policy as before")
			})
		})
	}
}

func TestAFileThatIsBeingWrittenIsNotTakenHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml"), Interval: time.Second}
		write(t, f.Path, allowDB)
		follow(t, f)
		// Each part is a document of its own, and looser than the whole.
		whole := "enable_access_restrictions: true\nallowed_endpoints: ['*:22']\ndenied_endpoints:\n"
		for i := range 10 {
			whole += "  - host-" + strconv.Itoa(i) + "\n"
			write(t, f.Path, whole)
			time.Sleep(time.Second)
			synctest.Wait()
			require.True(t, allows(t, f, "tcp db:5432"), "part %d was taken", i)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.False(t, allows(t, f, "tcp host-9:22"))
		require.True(t, allows(t, f, "tcp host-10:22"))
		require.EqualValues(t, 2, f.Status().Reloads)
	})
}

func TestReloadTakesTheFileAtOnce(t *testing.T) {
	f := &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml")}
	write(t, f.Path, allowDB)
	require.NoError(t, f.Reload())
	changes := 0
	stop := f.OnChange(func() {
		changes++
		require.True(t, allows(t, f, "tcp web:80"), "in force before anybody is told")
		require.NotEmpty(t, f.Status().Digest)
	})
	write(t, f.Path, allowWeb)
	require.NoError(t, f.Reload())
	require.NoError(t, f.Reload())
	write(t, f.Path, "# a comment\n"+allowWeb)
	require.NoError(t, f.Reload())
	require.Equal(t, 1, changes)
	require.Equal(t, 3, f.Explain(ask(t, "tcp web:80")).Line, "line numbers are of the file as it is")
	stop()
	write(t, f.Path, allowDB)
	require.NoError(t, f.Reload())
	require.Equal(t, 1, changes)
}

func TestAFileMayBePartOfAnother(t *testing.T) {
	f := &policy.File{Path: filepath.Join(t.TempDir(), "agent.conf"), Parse: func(r io.Reader) (*policy.Rules, error) {
		text, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		_, document, _ := strings.Cut(string(text), "---\n")
		return policy.Parse(strings.NewReader(document))
	}}
	write(t, f.Path, "name: a\n---\n"+allowDB)
	require.NoError(t, f.Reload())
	require.True(t, allows(t, f, "tcp db:5432"))
}

func TestAllFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	one, two := &policy.File{Path: filepath.Join(dir, "1")}, &policy.File{Path: filepath.Join(dir, "2")}
	both := policy.All(one, policy.Func(func(context.Context, policy.Request) error { return nil }), two)
	changes := 0
	stop := both.(policy.Changer).OnChange(func() { changes++ })
	digests := map[string]bool{both.(policy.Digester).Digest(): true}
	for i, f := range []*policy.File{one, two} {
		write(t, f.Path, "enable_access_restrictions: true\naudit_only: true\n")
		require.NoError(t, f.Reload())
		require.Equal(t, i+1, changes)
		digests[both.(policy.Digester).Digest()] = true
	}
	require.Len(t, digests, 3)
	require.NotNil(t, both.(policy.Auditor).WouldDeny(ask(t, "tcp x:1")))
	stop()
	write(t, two.Path, allowDB)
	require.NoError(t, two.Reload())
	require.Equal(t, 2, changes)
}

func TestStreamsSeeTheOldPolicyOrTheNewOne(t *testing.T) {
	f := &policy.File{Path: filepath.Join(t.TempDir(), "policy.yaml")}
	write(t, f.Path, allowDB)
	require.NoError(t, f.Reload())
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				r := f.Rules()
				db, web := r.Authorize(t.Context(), ask(t, "tcp db:5432")) == nil, r.Authorize(t.Context(), ask(t, "tcp web:80")) == nil
				if db == web {
					t.Error("a policy that is neither")
					return
				}
			}
		})
	}
	for i := range 200 {
		write(t, f.Path, []string{allowWeb, allowDB}[i%2])
		require.NoError(t, f.Reload())
	}
	stop.Store(true)
	wg.Wait()
}
