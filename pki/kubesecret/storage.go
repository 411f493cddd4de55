package kubesecret

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/outgate/outgate/pki"
)

// Storage is a [pki.Storage] in one Secret, each blob under a key of its own.
// What else is in the Secret stays as it is. Set the fields before the first
// call and leave them alone after.
type Storage struct {
	Server    string // base URL of the API server, such as "https://10.96.0.1:443"
	Namespace string
	Name      string // of the Secret
	TokenFile string // holds the bearer token of the service account
	CAFile    string // PEM, what the server's certificate chains to; "" means the roots of the system

	mu sync.Mutex
	// seen are the hashes of the blobs as this process knows them. A blob that
	// is another by the time it is saved was written by somebody else.
	seen map[string][sha256.Size]byte
}

var _ pki.Storage = (*Storage)(nil)

// Where the kubelet puts what a pod needs to know about its API server.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

// InCluster is the storage for a process in a pod, in the pod's own namespace.
// getenv is os.Getenv or acts like it; it is asked for KUBERNETES_SERVICE_HOST
// and KUBERNETES_SERVICE_PORT.
func InCluster(name string, getenv func(string) string) (*Storage, error) {
	return inCluster(accountDir, name, getenv)
}

func inCluster(dir, name string, getenv func(string) string) (*Storage, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("kubesecret: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this process is in no pod")
	}
	namespace, err := readFile(dir + "namespace")
	if err != nil {
		return nil, fmt.Errorf("kubesecret: the pod mounts no service account token (automountServiceAccountToken): %w", err)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return &Storage{
		Server:    "https://" + host + ":" + port,
		Namespace: strings.TrimSpace(string(namespace)),
		Name:      name,
		TokenFile: dir + "token",
		CAFile:    dir + "ca.crt",
	}, nil
}

const (
	// maxData is what the API server allows in one Secret, all keys together.
	maxData = 1 << 20

	// conflicts is how often a change of something else in the Secret may come
	// in between.
	conflicts = 10
)

// Load reads a blob. An error that matches fs.ErrPermission says what the
// service account lacks.
func (s *Storage) Load(ctx context.Context, name string) ([]byte, error) {
	if err := pki.CheckBlobName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	data, ok := secret.data[name]
	s.know(name, data, ok)
	if !ok {
		return nil, fmt.Errorf("kubesecret: %s in %s: %w", name, s, fs.ErrNotExist)
	}
	return data, nil
}

// Save writes a blob, and makes the Secret if there is none. The error matches
// [pki.ErrLocked] when another process has changed the blob since this one has
// loaded or saved it.
func (s *Storage) Save(ctx context.Context, name string, data []byte) error {
	return s.change(ctx, name, data, true)
}

// Delete removes a blob. The Secret stays.
func (s *Storage) Delete(ctx context.Context, name string) error {
	return s.change(ctx, name, nil, false)
}

// String names the Secret.
func (s *Storage) String() string { return fmt.Sprintf("secret %s/%s", s.Namespace, s.Name) }

// change puts a blob, or takes it away. The API server refuses a write that is
// not based on what it holds; then it is based on that, unless our own blob is
// what has changed.
func (s *Storage) change(ctx context.Context, name string, data []byte, present bool) error {
	if err := pki.CheckBlobName(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range conflicts {
		current, err := s.get(ctx)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !present:
			s.know(name, nil, false)
			return nil
		case errors.Is(err, fs.ErrNotExist):
			current = s.absent()
		case err != nil:
			return err
		}
		there, isThere := current.data[name]
		if isThere == present && string(there) == string(data) {
			// Also after a reply to our own write that was lost.
			s.know(name, data, present)
			return nil
		}
		if known, ok := s.seen[name]; ok && known != fingerprint(there, isThere) {
			return fmt.Errorf("%w: %s in %s was changed by somebody else; give each agent a Secret of its own", pki.ErrLocked, name, s)
		}
		s.know(name, there, isThere)
		if present {
			current.data[name] = data
		} else {
			delete(current.data, name)
		}
		err = s.put(ctx, current)
		if err == nil {
			s.know(name, data, present)
			return nil
		}
		if !errors.Is(err, errConflict) {
			return err
		}
	}
	return fmt.Errorf("kubesecret: %s changes all the time: %w", s, errConflict)
}

// secret is a Secret whose other fields are kept as they came.
type secret struct {
	fields map[string]json.RawMessage
	data   map[string][]byte
	exists bool
}

func (s *Storage) absent() *secret {
	metadata, _ := json.Marshal(map[string]string{"name": s.Name, "namespace": s.Namespace}) // strings do not fail
	return &secret{
		fields: map[string]json.RawMessage{
			"apiVersion": json.RawMessage(`"v1"`), "kind": json.RawMessage(`"Secret"`),
			"type": json.RawMessage(`"Opaque"`), "metadata": metadata,
		},
		data: make(map[string][]byte),
	}
}

func (s *Storage) get(ctx context.Context) (*secret, error) {
	text, err := s.call(ctx, http.MethodGet, s.path(true), nil)
	if err != nil {
		return nil, err
	}
	found, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("kubesecret: what %s answers is no Secret (%w); is it the API server?", s.Server, err)
	}
	return found, nil
}

func decode(text []byte) (*secret, error) {
	found := &secret{exists: true}
	if err := json.Unmarshal(text, &found.fields); err != nil {
		return nil, err
	}
	if raw := found.fields["data"]; raw != nil {
		if err := json.Unmarshal(raw, &found.data); err != nil {
			return nil, err
		}
	}
	if found.fields == nil {
		return nil, errors.New("null")
	}
	if found.data == nil {
		found.data = make(map[string][]byte)
	}
	return found, nil
}

func (s *secret) encode() ([]byte, error) {
	data, err := json.Marshal(s.data)
	if err != nil {
		return nil, err
	}
	fields := maps.Clone(s.fields)
	fields["data"] = data
	return json.Marshal(fields)
}

// put writes what get has read, under its resourceVersion.
func (s *Storage) put(ctx context.Context, changed *secret) error {
	size := 0
	for _, data := range changed.data {
		size += len(data)
	}
	if size > maxData {
		return fmt.Errorf("kubesecret: %s would hold %d bytes; Kubernetes allows %d", s, size, maxData)
	}
	body, err := changed.encode()
	if err != nil {
		return err
	}
	if changed.exists {
		_, err = s.call(ctx, http.MethodPut, s.path(true), body)
	} else {
		_, err = s.call(ctx, http.MethodPost, s.path(false), body)
	}
	return err
}

func (s *Storage) path(named bool) string {
	path := "/api/v1/namespaces/" + url.PathEscape(s.Namespace) + "/secrets"
	if named {
		path += "/" + url.PathEscape(s.Name)
	}
	return path
}

func (s *Storage) know(name string, data []byte, present bool) {
	if s.seen == nil {
		s.seen = make(map[string][sha256.Size]byte)
	}
	s.seen[name] = fingerprint(data, present)
}

// fingerprint is the zero value of a blob that is not there.
func fingerprint(data []byte, present bool) [sha256.Size]byte {
	if !present {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(data)
}

// maxFile bounds a token, a certificate bundle and the name of a namespace.
const maxFile = 1 << 20

func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
