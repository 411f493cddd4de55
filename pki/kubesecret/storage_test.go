package kubesecret_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/pki/kubesecret"
	"github.com/outgate/outgate/pki/pkitest"
)

// fakeAPI keeps one Secret as an API server does. What only a real one can show
// is in apiserver_test.go; this one can fail.
type fakeAPI struct {
	*httptest.Server
	fail func(w http.ResponseWriter, r *http.Request) bool // answers instead; nil never does
	lose atomic.Bool                                       // does what it is asked, and the reply is cut off
	asks atomic.Int64

	version int
	secret  map[string]any // nil: none
}

func newFakeAPI(t *testing.T) (*fakeAPI, *kubesecret.Storage) {
	t.Helper()
	f := new(fakeAPI)
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = nil
	f.StartTLS()
	t.Cleanup(f.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600))
	token := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(token, []byte(canary), 0o600))
	return f, &kubesecret.Storage{Server: f.URL, Namespace: "agents", Name: "edge", TokenFile: token, CAFile: ca}
}

const canary = "canary-5c1d9e"

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asks.Add(1)
	if f.fail != nil && f.fail(w, r) {
		return
	}
	code := f.serve(r)
	if f.lose.CompareAndSwap(true, false) {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	if code < 300 {
		_ = json.NewEncoder(w).Encode(f.secret)
	} else {
		fmt.Fprintf(w, `{"kind":"Status","message":"status %d"}`, code)
	}
}

func (f *fakeAPI) serve(r *http.Request) int {
	var in map[string]any
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &in)
	metadata, _ := in["metadata"].(map[string]any)
	switch {
	case r.Header.Get("Authorization") != "Bearer "+canary:
		return http.StatusUnauthorized
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces/agents/secrets":
		if f.secret != nil {
			return http.StatusConflict
		}
	case r.URL.Path != "/api/v1/namespaces/agents/secrets/edge" || f.secret == nil:
		return http.StatusNotFound
	case r.Method == http.MethodGet:
		return http.StatusOK
	case metadata["resourceVersion"] != fmt.Sprint(f.version):
		return http.StatusConflict
	}
	f.version++
	metadata["resourceVersion"] = fmt.Sprint(f.version)
	f.secret = in
	return http.StatusOK
}

func TestStoragePassesTheSuite(t *testing.T) {
	pkitest.TestStorage(t, func(t *testing.T) pki.Storage {
		_, storage := newFakeAPI(t)
		return storage
	})
}

func TestAReplyThatIsLostIsNoConflict(t *testing.T) {
	f, storage := newFakeAPI(t)
	for n, body := range []string{"created", "updated", "again"} {
		first := true
		f.fail = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet && first {
				first = false
				f.lose.Store(true)
			}
			return false
		}
		require.NoError(t, storage.Save(t.Context(), "identity", []byte(body)))
		data, err := storage.Load(t.Context(), "identity")
		require.NoError(t, err)
		require.Equal(t, body, string(data))
		require.Equal(t, n+1, f.version) // written once
	}
}

func TestAServerThatIsAwayForAMomentIsAskedAgain(t *testing.T) {
	for _, status := range []int{429, 500, 503, 504} {
		f, storage := newFakeAPI(t)
		failures := 2
		f.fail = func(w http.ResponseWriter, _ *http.Request) bool {
			if failures--; failures < 0 {
				return false
			}
			w.WriteHeader(status)
			return true
		}
		require.NoError(t, storage.Save(t.Context(), "identity", []byte("x")))

		if status != 503 {
			continue
		}
		failures = 1000
		before := f.asks.Load()
		err := storage.Save(t.Context(), "identity", []byte("y"))
		require.ErrorContains(t, err, fmt.Sprintf("HTTP %d", status))
		require.EqualValues(t, 5, f.asks.Load()-before)
	}
}

func TestWhatIsNotAskedTwice(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a redirect, which would get the token": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusTemporaryRedirect)
		}, "HTTP 307"},
		"a refusal":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "verbs get and update"},
		"a web page":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, "is it the API server?"},
		"another shape": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":{"a":1}}`) }, "is it the API server?"},
		"a flood":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5<<20)) }, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			f, storage := newFakeAPI(t)
			f.fail = func(w http.ResponseWriter, r *http.Request) bool {
				c.answer(w, r)
				return true
			}
			_, err := storage.Load(t.Context(), "identity")
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), canary)
			require.EqualValues(t, 1, f.asks.Load())
		})
	}
}

// Everything that the agent is told, and has to be told before the token leaves.
func TestAStorageThatIsSetUpWronglySaysSo(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for name, c := range map[string]struct {
		change func(*kubesecret.Storage)
		want   string
	}{
		"no server":          {func(s *kubesecret.Storage) { s.Server = "" }, "Server is not a URL"},
		"plain HTTP":         {func(s *kubesecret.Storage) { s.Server = "http://127.0.0.1:1" }, "Server is not a URL"},
		"a password":         {func(s *kubesecret.Storage) { s.Server = "https://u:p@127.0.0.1" }, "Server is not a URL"},
		"no name":            {func(s *kubesecret.Storage) { s.Name = "" }, "are required"},
		"no namespace":       {func(s *kubesecret.Storage) { s.Namespace = "" }, "are required"},
		"no token":           {func(s *kubesecret.Storage) { s.TokenFile += ".not" }, "token"},
		"a device as token":  {func(s *kubesecret.Storage) { s.TokenFile = os.DevNull }, "is no file"},
		"no CA":              {func(s *kubesecret.Storage) { s.CAFile += ".not" }, "CAFile"},
		"an empty CA":        {func(s *kubesecret.Storage) { s.CAFile = empty }, "no certificate in PEM"},
		"the system's roots": {func(s *kubesecret.Storage) { s.CAFile = "" }, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			f, storage := newFakeAPI(t)
			c.change(storage)
			_, err := storage.Load(t.Context(), "identity")
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), canary)
			require.Zero(t, f.asks.Load())
		})
	}
}

func TestAnEndlessFightEnds(t *testing.T) {
	f, storage := newFakeAPI(t)
	require.NoError(t, storage.Save(t.Context(), "identity", []byte("x")))
	f.fail = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			f.version++ // somebody was faster
		}
		return false
	}
	err := storage.Save(t.Context(), "identity", []byte("y"))
	require.ErrorContains(t, err, "changes all the time")
}

func TestASilentServerIsLeft(t *testing.T) {
	f, storage := newFakeAPI(t)
	f.fail = func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	_, err := storage.Load(ctx, "identity")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestOutsideOfAClusterThereIsNone(t *testing.T) {
	_, err := kubesecret.InCluster("edge", func(string) string { return "" })
	require.ErrorContains(t, err, "in no pod")
	_, err = kubesecret.InCluster("edge", service("10.96.0.1"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "automountServiceAccountToken")
}

func TestInsideOfAClusterAllIsKnown(t *testing.T) {
	dir := t.TempDir() + "/"
	require.NoError(t, os.WriteFile(dir+"namespace", []byte("agents\n"), 0o600))
	for host, server := range map[string]string{"10.96.0.1": "https://10.96.0.1:443", "fd00::1": "https://[fd00::1]:443"} {
		storage, err := kubesecret.InClusterAt(dir, "edge", service(host))
		require.NoError(t, err)
		require.Equal(t, &kubesecret.Storage{
			Server: server, Namespace: "agents", Name: "edge", TokenFile: dir + "token", CAFile: dir + "ca.crt",
		}, storage)
	}
}

// service is the environment of a pod.
func service(host string) func(string) string {
	return func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}[name]
	}
}
