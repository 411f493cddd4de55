package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
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
	// silent. An [Enroller] sets it to its own; set it before Run.
	Logger *slog.Logger

	// RenewalGrace is as in [Enroller], which sets it; set it before Run.
	RenewalGrace time.Duration

	storage Storage
	clock   func() time.Time // what the machine believes the time to be
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
	skew        time.Duration // as Credential.ClockSkew
	taken       time.Time     // when it came into memory, by the clock of this machine
	since       time.Time     // the same moment; its monotonic reading counts
}

// Status is a look at an [Identity].
type Status struct {
	Agent    string
	Serial   string // as [SerialOf]
	NotAfter time.Time
	RenewAt  time.Time // when Run means to renew next; zero while it does not run
	// Failure is why the last attempt to renew failed; nil after a success.
	Failure error
	// ClockSkew is how far the registrar's clock was ahead of this machine's when
	// it issued the certificate; negative when it was behind. It is exact to a
	// second or two, and 0 when it is not known, as after a restart.
	ClockSkew time.Duration
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
	return &Identity{storage: storage, current: h, clock: time.Now}
}

// Agent is the name in the certificate.
func (i *Identity) Agent() string { return i.now().credential.Agent }

// Status tells where the identity stands.
func (i *Identity) Status() Status {
	i.mu.RLock()
	defer i.mu.RUnlock()
	c := i.current.credential
	return Status{
		Agent: c.Agent, Serial: c.Serial, NotAfter: c.NotAfter,
		RenewAt: i.renewAt, Failure: i.failure, ClockSkew: i.current.skew,
	}
}

// Certificate is the newest certificate with its key. The caller does not change
// it.
func (i *Identity) Certificate() *tls.Certificate { return i.now().certificate }

// ClientTLS is a configuration to reach the gateway as this agent: TLS 1.3, no
// session resumption. It presents the newest certificate at each handshake, also
// when that was renewed after the configuration was made. The roots are those of
// the moment, so ask for a new configuration for each connection: the
// GetTLSClientConfig of a transport's Dialer does.
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
	return newHolding(key, file.Credential, file.Token, time.Now())
}

// newHolding checks what a registrar or a file says: the certificate is for the
// key, and what stands beside it in the credential agrees with it.
func newHolding(key crypto.Signer, c *Credential, token string, now time.Time) (*holding, error) {
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
		skew:        skewOf(c, now),
		taken:       now,
		since:       time.Now(),
	}, nil
}

// save makes h the stored identity.
func (h *holding) save(ctx context.Context, storage Storage) error {
	if h.ended(h.taken, 0) {
		return fmt.Errorf("new certificate ended at %s already; the clock of this machine shows %s: set it by NTP",
			h.credential.NotAfter.Format(time.RFC3339), h.taken.UTC().Format(time.RFC3339))
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

// end is when the certificate ends, and the grace after it, by the clock of this
// machine.
func (h *holding) end(grace time.Duration) time.Time {
	return h.credential.NotAfter.Add(grace - h.skew)
}

// ended reports whether the certificate ended, and the grace after it, by the
// clock that shows now.
func (h *holding) ended(now time.Time, grace time.Duration) bool { return !now.Before(h.end(grace)) }
