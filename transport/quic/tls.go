package quic

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// protocol is the ALPN name. A change that old peers cannot read changes it.
const protocol = "outgate/1"

// clientTLS returns what an agent presents and accepts, for a gateway that is
// called host unless the caller named it.
func clientTLS(base *tls.Config, host string) (*tls.Config, error) {
	if base == nil || len(base.Certificates) == 0 && base.GetClientCertificate == nil {
		return nil, errors.New("quic: Dialer.TLSClientConfig has no client certificate; set Certificates or GetClientCertificate, the gateway demands one")
	}
	c := base.Clone()
	if err := harden(c); err != nil {
		return nil, err
	}
	c.ClientSessionCache = nil
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c, nil
}

// serverTLS returns what a gateway presents and accepts. Whatever the caller's
// configuration says, a client without a verified certificate does not get in.
func serverTLS(base *tls.Config) (*tls.Config, error) {
	if base == nil {
		return nil, errors.New("quic: the TLS configuration is nil; the listener needs a certificate and ClientCAs")
	}
	if len(base.Certificates) == 0 && base.GetCertificate == nil && base.GetConfigForClient == nil {
		return nil, errors.New("quic: the TLS configuration has no certificate; set Certificates, GetCertificate or GetConfigForClient")
	}
	// Without ClientCAs crypto/tls verifies against the roots of the system, which
	// vouch for half the world.
	if base.ClientCAs == nil && base.GetConfigForClient == nil {
		return nil, errors.New("quic: the TLS configuration has no ClientCAs; set them to the authority that signs the agents, or set GetConfigForClient")
	}
	c := base.Clone()
	if err := harden(c); err != nil {
		return nil, err
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true // a ticket outlives a revocation
	if pick := base.GetConfigForClient; pick != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			picked, err := pick(hello)
			if err != nil {
				return nil, err
			}
			if picked == nil {
				picked = c
			}
			if picked.ClientCAs == nil {
				return nil, errors.New("quic: GetConfigForClient returned a configuration without ClientCAs")
			}
			if picked == c {
				return nil, nil
			}
			own := picked.Clone()
			own.GetConfigForClient = nil
			return serverTLS(own)
		}
	}
	return c, nil
}

func harden(c *tls.Config) error {
	if c.MaxVersion != 0 && c.MaxVersion < tls.VersionTLS13 {
		return fmt.Errorf("quic: the TLS configuration ends at %s; QUIC needs TLS 1.3, leave MaxVersion zero", tls.VersionName(c.MaxVersion))
	}
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{protocol}
	return nil
}
