package mem

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"

	"github.com/outgate/outgate/transport"
)

const defaultAgent = "agent"

var _ transport.Dialer = (*Dialer)(nil)

// Dialer connects to one [Listener]. Its fields must not change after the first
// Dial. All methods may be called concurrently.
type Dialer struct {
	// Listener is where to connect. Required.
	Listener *Listener

	// Name is the common name in the agent's certificate and the host in its
	// address. Empty means "agent".
	Name string

	// Certificate is what the gateway sees as the agent's verified certificate.
	// Nil means one made up from Name, the same for every connection.
	Certificate *x509.Certificate

	carriers
}

// String names the transport, for people and in the status of an agent.
func (d *Dialer) String() string { return "mem" }

// Dial connects to d.Listener; the URL is not looked at. The connection works
// before the Listener has accepted it. ctx bounds the wait for a place in the
// backlog. A closed Listener refuses with an error that matches
// transport.Refused.
func (d *Dialer) Dial(ctx context.Context, _ string) (transport.Mux, error) {
	if d.Listener == nil {
		return nil, errors.New("mem: dial: Dialer.Listener is nil; set it to the listener to connect to")
	}
	m, err := d.Listener.connect(ctx, d)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (d *Dialer) name() string { return cmp.Or(d.Name, defaultAgent) }

func (d *Dialer) certificate() *x509.Certificate {
	if d.Certificate != nil {
		return d.Certificate
	}
	return certificate(d.name(), x509.ExtKeyUsageClientAuth)
}
