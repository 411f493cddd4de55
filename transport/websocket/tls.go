package websocket

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// http1 is the ALPN of what can become a WebSocket here.
const http1 = "http/1.1"

// serverTLS returns a copy of c that lets in nobody but agents, over one of the
// protocols, also where c picks another configuration for a client. Errors call it
// name.
func serverTLS(name string, c *tls.Config, protocols ...string) (*tls.Config, error) {
	pick := (func(*tls.ClientHelloInfo) (*tls.Config, error))(nil)
	if c != nil {
		pick = c.GetConfigForClient
	}
	switch {
	case c == nil || len(c.Certificates) == 0 && c.GetCertificate == nil && pick == nil:
		return nil, fmt.Errorf("websocket: %s has no certificate for the gateway", name)
	case c.ClientCAs == nil && pick == nil:
		return nil, fmt.Errorf("websocket: %s has no ClientCAs: set them to the authority of the agents, "+
			"or every certificate of a public authority could connect", name)
	}
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.SessionTicketsDisabled = true
	c.NextProtos = protocols
	c.DynamicRecordSizingDisabled = true
	if pick != nil {
		fallback := c.Clone()
		fallback.GetConfigForClient = nil
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			picked, err := pick(hello)
			if err != nil {
				return nil, err
			}
			if picked == nil {
				picked = fallback
			}
			picked = picked.Clone()
			picked.GetConfigForClient = nil // TLS asks once
			return serverTLS("what GetConfigForClient picked", picked, protocols...)
		}
	}
	return c, nil
}

// clientTLS returns a copy of c for a client that speaks one of the protocols.
func clientTLS(c *tls.Config, protocols ...string) *tls.Config {
	c = c.Clone()
	c.NextProtos = protocols
	c.DynamicRecordSizingDisabled = true
	return c
}

// agentTLS is clientTLS for the mutual TLS.
func agentTLS(c *tls.Config, protocols ...string) (*tls.Config, error) {
	if c == nil || len(c.Certificates) == 0 && c.GetClientCertificate == nil {
		return nil, errors.New("websocket: Dialer.TLSClientConfig has no client certificate: " +
			"set Certificates or GetClientCertificate to the agent's")
	}
	c = clientTLS(c, protocols...)
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	c.ClientSessionCache = nil
	return c, nil
}
