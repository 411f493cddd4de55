package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// ServerTLS is a configuration for a gateway that agents reach by these names
// and addresses, with a certificate of this authority that renews itself while
// the server runs. The authority's own certificate and Chain are presented beside
// it, so that agents can pin the authority.
//
// clients is one of two. tls.VerifyClientCertIfGiven is for the one port that
// serves registration and the tunnel: a client without a certificate gets in,
// and each route must ask for the [AgentName] if it wants one.
// tls.RequireAndVerifyClientCert is for a port of the tunnel alone. Either way,
// a client with a certificate that is revoked or unknown is refused.
//
// TLS is 1.3 and without session tickets: each connection is verified anew.
func (a *Authority) ServerTLS(clients tls.ClientAuthType, names ...string) (*tls.Config, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if clients != tls.VerifyClientCertIfGiven && clients != tls.RequireAndVerifyClientCert {
		return nil, fmt.Errorf("pki: server TLS: client authentication %s; use VerifyClientCertIfGiven or RequireAndVerifyClientCert", clients)
	}
	server := &serverCertificate{authority: a, names: slices.Clone(names)}
	if err := server.checkNames(); err != nil {
		return nil, err
	}
	if _, err := server.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		GetCertificate:   server.get,
		ClientAuth:       clients,
		ClientCAs:        a.Pool(),
		VerifyConnection: a.VerifyConnection,
		// Small first records help a page to appear, not a tunnel.
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      true,
	}, nil
}

// serverRetry keeps a signer that fails from being asked at every handshake.
const serverRetry = time.Minute

// serverCertificate is the gateway's own certificate, which is replaced when a
// third of its life is left. The key stays for the life of the process.
type serverCertificate struct {
	authority *Authority
	names     []string

	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	current *tls.Certificate
	retry   time.Time
}

func (s *serverCertificate) checkNames() error {
	if len(s.names) == 0 {
		return errors.New("pki: server TLS: name the host names or addresses that agents dial")
	}
	for _, name := range s.names {
		host := strings.TrimPrefix(name, "*.")
		if net.ParseIP(name) == nil && checkTrustDomain(host) != nil {
			return fmt.Errorf("pki: server TLS: %.80q is neither a lower-case host name nor an address; no scheme, no port", name)
		}
	}
	return nil
}

func (s *serverCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.current != nil && now.Before(s.current.Leaf.NotAfter.Add(-renewBefore(s.current.Leaf))) {
		return s.current, nil
	}
	if s.current != nil && now.Before(s.retry) {
		return s.current, nil
	}
	fresh, err := s.issue(now)
	if err != nil {
		if s.current == nil {
			return nil, err
		}
		s.retry = now.Add(serverRetry)
		s.authority.log().ErrorContext(context.Background(), "pki: renew the gateway's certificate",
			"err", err, "not_after", s.current.Leaf.NotAfter)
		return s.current, nil
	}
	s.current = fresh
	return fresh, nil
}

func (s *serverCertificate) issue(now time.Time) (*tls.Certificate, error) {
	if s.key == nil {
		key, err := newKey()
		if err != nil {
			return nil, fmt.Errorf("pki: server TLS: %w", err)
		}
		s.key = key
	}
	leaf, err := s.authority.sign(s.authority.serverTemplate(s.names, now), s.key.Public())
	if err != nil {
		return nil, err
	}
	chain := [][]byte{leaf.Raw, s.authority.Certificate.Raw}
	for _, cert := range s.authority.Chain {
		chain = append(chain, cert.Raw) // the root too, to be pinned
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: s.key, Leaf: leaf}, nil
}

// renewBefore is how long before its end a certificate is due: 30 days, or a
// third of its life if that is less.
func renewBefore(cert *x509.Certificate) time.Duration {
	return min(30*24*time.Hour, cert.NotAfter.Sub(cert.NotBefore)/3)
}
