package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Blobs of a Storage. What they hold is private to this package.
const (
	identityBlob = "identity" // a key and its credential, replaced together
	pendingBlob  = "pending"  // a key for which a certificate is being asked
)

// Identity is an agent's certificate and key, kept alive: TLS configurations
// made from it use the newest certificate, and Run renews it. All methods may be
// called concurrently.
type Identity struct {
	// Logger hears of renewals and of what keeps them from succeeding. nil is
	// silent. Set it before Run.
	Logger *slog.Logger

	storage Storage
	running atomic.Bool

	mu      sync.RWMutex
	current *holding
	renewAt time.Time
	failure error
}

// holding is one certificate with all that belongs to it.
type holding struct {
	key         crypto.Signer
	credential  *Credential
	token       string // ID of the token that it was enrolled with
	certificate *tls.Certificate
	roots       *x509.CertPool
}

// Status is a look at an [Identity].
type Status struct {
	Agent    string
	Serial   string // as [SerialOf]
	NotAfter time.Time
	RenewAt  time.Time // when Run means to renew next; zero while it does not run
	// Failure is why the last attempt to renew failed; nil after a success.
	Failure error
}

// Enroll returns the identity that storage holds, or gets one: it makes a key,
// stores it, registers it, stores the certificate. When it returns an error, or
// the machine crashes at any point, calling it again with the same token goes on
// where it stopped; no token is lost.
//
// A token other than the one that the stored identity came from enrols anew, as
// after a revocation, and replaces the identity when that succeeds. An identity
// that has expired does the same. The CSR of r is made by Enroll.
func Enroll(ctx context.Context, storage Storage, registrar Registrar, r Registration) (*Identity, error) {
	stored, err := load(ctx, storage)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	if stored != nil && !expired(stored) && (r.Token.IsZero() || r.Token.ID() == stored.token) {
		if r.Agent != "" && r.Agent != stored.credential.Agent {
			return nil, fmt.Errorf("pki: enrol: storage holds the identity of agent %q, not of %q; "+
				"give each agent a storage of its own, or enrol with a new token", stored.credential.Agent, r.Agent)
		}
		return newIdentity(storage, stored), nil
	}
	if r.Token.IsZero() {
		return nil, errors.New("pki: enrol: storage holds no valid identity, and there is no token to get one")
	}
	key, err := pendingKey(ctx, storage, stored)
	if err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	if r.CSR, err = newCSR(key); err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	credential, err := registrar.Register(ctx, r)
	if err != nil {
		return nil, err // a registrar's errors speak for themselves
	}
	fresh, err := newHolding(key, credential, r.Token.ID())
	if err == nil && r.Agent != "" && r.Agent != credential.Agent {
		err = fmt.Errorf("asked for agent %q, got %q", r.Agent, credential.Agent)
	}
	if err == nil {
		err = fresh.save(ctx, storage)
	}
	if err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	return newIdentity(storage, fresh), nil
}

// Load returns the identity that storage holds, whether it has expired or not.
// The error matches fs.ErrNotExist when there is none.
func Load(ctx context.Context, storage Storage) (*Identity, error) {
	stored, err := load(ctx, storage)
	if err != nil {
		return nil, fmt.Errorf("pki: load identity: %w", err)
	}
	return newIdentity(storage, stored), nil
}

func newIdentity(storage Storage, h *holding) *Identity {
	return &Identity{storage: storage, current: h}
}

// Agent is the name in the certificate.
func (i *Identity) Agent() string { return i.now().credential.Agent }

// Status tells where the identity stands.
func (i *Identity) Status() Status {
	i.mu.RLock()
	defer i.mu.RUnlock()
	c := i.current.credential
	return Status{Agent: c.Agent, Serial: c.Serial, NotAfter: c.NotAfter, RenewAt: i.renewAt, Failure: i.failure}
}

// Certificate is the newest certificate with its key. The caller does not change
// it.
func (i *Identity) Certificate() *tls.Certificate { return i.now().certificate }

// ClientTLS is a configuration to reach the gateway as this agent: TLS 1.3, no
// session resumption. It presents the newest certificate at each handshake, also
// when that was renewed after the configuration was made. The roots are those of
// the moment: ask for a new configuration for each connection.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    i.now().roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.Certificate(), nil
		},
	}
}

func (i *Identity) now() *holding {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.current
}

// identityFile is what the storage keeps.
type identityFile struct {
	Version    int         `json:"version"`
	Key        []byte      `json:"key"` // PKCS #8
	Token      string      `json:"token,omitempty"`
	Credential *Credential `json:"credential"`
}

const identityVersion = 1

func load(ctx context.Context, storage Storage) (*holding, error) {
	data, err := storage.Load(ctx, identityBlob)
	if err != nil {
		return nil, err
	}
	var file identityFile
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("stored identity is damaged (%w); remove it and enrol with a new token", err)
	}
	if file.Version != identityVersion || file.Credential == nil {
		return nil, fmt.Errorf("stored identity has version %d, this program reads %d", file.Version, identityVersion)
	}
	key, err := parseKey(file.Key)
	if err != nil {
		return nil, fmt.Errorf("key of the stored identity: %w", err)
	}
	return newHolding(key, file.Credential, file.Token)
}

// newHolding checks what a registrar or a file says: the certificate is for the
// key, and what stands beside it in the credential agrees with it.
func newHolding(key crypto.Signer, c *Credential, token string) (*holding, error) {
	if c == nil {
		return nil, errors.New("registrar returned no credential")
	}
	leaf, err := c.Leaf()
	if err != nil {
		return nil, err
	}
	if !sameKey(leaf.PublicKey, key.Public()) {
		return nil, errors.New("certificate is for another key")
	}
	if CheckName(c.Agent) != nil || c.Serial != SerialOf(leaf) ||
		!c.NotAfter.Equal(leaf.NotAfter) || !c.NotBefore.Equal(leaf.NotBefore) {
		return nil, errors.New("credential and certificate disagree")
	}
	if _, name, err := identityOf(leaf); err == nil && name != c.Agent {
		return nil, fmt.Errorf("credential is for agent %q, its certificate for %q", c.Agent, name)
	}
	roots, err := c.pool()
	if err != nil {
		return nil, err
	}
	return &holding{
		key:         key,
		credential:  c,
		token:       token,
		roots:       roots,
		certificate: &tls.Certificate{Certificate: c.Certificates, PrivateKey: key, Leaf: leaf},
	}, nil
}

// save makes h the stored identity.
func (h *holding) save(ctx context.Context, storage Storage) error {
	if expired(h) {
		return fmt.Errorf("certificate ended at %s; is the clock of this machine right?", h.credential.NotAfter.Format(time.RFC3339))
	}
	der, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		return err
	}
	data, err := json.Marshal(identityFile{Version: identityVersion, Key: der, Token: h.token, Credential: h.credential})
	if err != nil {
		return err
	}
	if err := storage.Save(ctx, identityBlob, data); err != nil {
		return err
	}
	// The identity is safe. A pending key that stays behind is recognised as
	// used by pendingKey.
	_ = storage.Delete(ctx, pendingBlob)
	return nil
}

func (h *holding) lifetime() time.Duration {
	return h.credential.NotAfter.Sub(h.credential.NotBefore)
}

func expired(h *holding) bool { return !time.Now().Before(h.credential.NotAfter) }

// pendingKey returns the key of an attempt that was not finished, or a new one.
// Either is on disk before the registrar sees it, so that a certificate whose
// arrival a crash prevents can be asked for again.
func pendingKey(ctx context.Context, storage Storage, current *holding) (crypto.Signer, error) {
	der, err := storage.Load(ctx, pendingBlob)
	if err == nil {
		// A key that cannot be read is no loss: no certificate was seen for it.
		key, err := parseKey(der)
		if err == nil && (current == nil || !sameKey(key.Public(), current.key.Public())) {
			return key, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return key, storage.Save(ctx, pendingBlob, der)
}
