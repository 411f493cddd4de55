package kubesecret_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testkube"
	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/pki/kubesecret"
	"github.com/outgate/outgate/pki/pkitest"
)

type object = map[string]any

const (
	namespace = "agents"
	secrets   = "/api/v1/namespaces/" + namespace + "/secrets"
)

// site is a namespace of a real API server, with a service account that may get
// and update the Secret "outgate-agent", and nothing else.
type site struct {
	*testkube.Cluster
	token string // file
}

func newSite(t *testing.T) *site {
	c := testkube.Start(t)
	create := func(path string, o object) { c.Do(t, http.MethodPost, path, o, nil) }
	const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
	create("/api/v1/namespaces", object{"metadata": object{"name": namespace}})
	for _, account := range []string{"agent", "installer"} {
		create("/api/v1/namespaces/"+namespace+"/serviceaccounts", object{"metadata": object{"name": account}})
		create(rbac+"/rolebindings", object{
			"metadata": object{"name": account},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
			"subjects": []object{{"kind": "ServiceAccount", "name": account, "namespace": namespace}},
		})
	}
	create(rbac+"/roles", object{
		"metadata": object{"name": "agent"},
		"rules":    []object{{"apiGroups": []string{""}, "resources": []string{"secrets"}, "resourceNames": []string{"outgate-agent"}, "verbs": []string{"get", "update"}}},
	})
	create(rbac+"/roles", object{
		"metadata": object{"name": "installer"},
		"rules":    []object{{"apiGroups": []string{""}, "resources": []string{"secrets"}, "verbs": []string{"get", "update", "create"}}},
	})
	s := &site{Cluster: c, token: filepath.Join(t.TempDir(), "token")}
	s.project(t, "agent")
	return s
}

// project puts a new token of an account where the agent reads it, as the kubelet
// does.
func (s *site) project(t *testing.T, account string) {
	t.Helper()
	s.write(t, s.Token(t, namespace, account, 10*time.Minute)+"\n")
}

func (s *site) write(t *testing.T, token string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.token+".new", []byte(token), 0o600))
	require.NoError(t, os.Rename(s.token+".new", s.token))
}

func (s *site) storage(name string) *kubesecret.Storage {
	return &kubesecret.Storage{Server: s.URL, Namespace: namespace, Name: name, TokenFile: s.token, CAFile: s.CAFile}
}

func (s *site) create(t *testing.T, name string) {
	t.Helper()
	s.Do(t, http.MethodPost, secrets, object{"metadata": object{"name": name}}, nil)
}

func TestOnARealAPIServer(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()

	t.Run("the account may not make the Secret, and learns who may", func(t *testing.T) {
		_, err := s.storage("outgate-agent").Load(ctx, "identity")
		require.ErrorIs(t, err, fs.ErrNotExist)
		err = s.storage("outgate-agent").Save(ctx, "identity", []byte("x"))
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "kubectl create secret generic outgate-agent -n agents")
	})
	s.create(t, "outgate-agent")

	t.Run("an agent enrols, renews and starts again", func(t *testing.T) {
		signer, cert, err := pki.NewCA("test")
		require.NoError(t, err)
		a := &pki.Authority{Signer: signer, Certificate: cert, Store: new(pki.MemoryStore)}
		token, err := a.Grant(ctx, pki.Grant{Agent: "edge"})
		require.NoError(t, err)
		first, err := pki.Enroll(ctx, s.storage("outgate-agent"), a, pki.Registration{Token: token})
		require.NoError(t, err)

		s.project(t, "agent") // the kubelet has rotated the token
		again, err := pki.Enroll(ctx, s.storage("outgate-agent"), a, pki.Registration{Token: token})
		require.NoError(t, err)
		require.Equal(t, first.Status().Serial, again.Status().Serial)
		var stored struct{ Data map[string][]byte }
		s.Do(t, http.MethodGet, secrets+"/outgate-agent", nil, &stored)
		require.Contains(t, stored.Data, "identity")
		require.NotContains(t, stored.Data, "pending")
	})
	t.Run("it reads the token anew each time", func(t *testing.T) {
		storage := s.storage("outgate-agent")
		s.write(t, "not a token")
		_, err := storage.Load(ctx, "identity")
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, s.token)
		s.project(t, "agent")
		_, err = storage.Load(ctx, "identity")
		require.NoError(t, err)
	})
	t.Run("it reaches no other Secret", func(t *testing.T) {
		s.create(t, "other")
		_, err := s.storage("other").Load(ctx, "identity")
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "verbs get and update")
		require.ErrorIs(t, s.storage("other").Save(ctx, "identity", nil), fs.ErrPermission)
	})
	t.Run("a second agent in the same Secret is noticed", func(t *testing.T) {
		first, second := s.storage("outgate-agent"), s.storage("outgate-agent")
		for _, each := range []*kubesecret.Storage{first, second} {
			_, err := each.Load(ctx, "identity")
			require.NoError(t, err)
		}
		require.NoError(t, first.Save(ctx, "identity", []byte("the first")))
		require.ErrorIs(t, second.Save(ctx, "identity", []byte("the second")), pki.ErrLocked)
		require.ErrorIs(t, second.Delete(ctx, "identity"), pki.ErrLocked)
		data, err := first.Load(ctx, "identity")
		require.NoError(t, err)
		require.Equal(t, "the first", string(data))
	})
	t.Run("what others write to the Secret stays", func(t *testing.T) {
		s.project(t, "installer")
		storage := s.storage("shared")
		s.create(t, "shared")
		var wg sync.WaitGroup
		wg.Go(func() { // somebody who labels it, all the time
			for n := range 20 {
				s.Do(t, http.MethodPatch, secrets+"/shared", object{
					"metadata": object{"labels": object{"count": fmt.Sprint(n)}, "annotations": object{"example.com/by": "somebody"}},
					"data":     object{"theirs": []byte("kept")},
				}, nil)
			}
		})
		for n := range 20 {
			require.NoError(t, storage.Save(ctx, "ours", fmt.Append(nil, n)))
		}
		wg.Wait()
		var stored struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Data     map[string][]byte
		}
		s.Do(t, http.MethodGet, secrets+"/shared", nil, &stored)
		require.Equal(t, map[string]string{"count": "19"}, stored.Metadata.Labels)
		require.Equal(t, map[string]string{"example.com/by": "somebody"}, stored.Metadata.Annotations)
		require.Equal(t, map[string][]byte{"theirs": []byte("kept"), "ours": []byte("19")}, stored.Data)
	})
	t.Run("a Secret has its size", func(t *testing.T) {
		s.project(t, "installer")
		storage := s.storage("large")
		full := bytes.Repeat([]byte{0xff}, 1<<20)
		require.NoError(t, storage.Save(ctx, "identity", full))
		require.ErrorContains(t, storage.Save(ctx, "pending", []byte{1}), "Kubernetes allows 1048576")
		data, err := storage.Load(ctx, "identity")
		require.NoError(t, err)
		require.Equal(t, full, data)
	})
	t.Run("the suite of storages", func(t *testing.T) {
		s.project(t, "installer")
		n := 0
		pkitest.TestStorage(t, func(*testing.T) pki.Storage {
			n++
			return s.storage(fmt.Sprintf("suite-%d", n)) // which is made when it is first written
		})
	})
}
