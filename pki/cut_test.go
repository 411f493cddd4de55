package pki_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// frayed is a connection that ends after so many bytes in one direction.
type frayed struct {
	net.Conn
	reads, writes int // what is left; negative is no limit
}

func (f *frayed) Read(p []byte) (int, error) {
	if f.reads == 0 {
		f.Close() // the peer learns of it too
		return 0, io.EOF
	}
	if f.reads > 0 {
		p = p[:min(len(p), f.reads)]
	}
	n, err := f.Conn.Read(p)
	if f.reads > 0 {
		f.reads -= n
	}
	return n, err
}

func (f *frayed) Write(p []byte) (int, error) {
	if f.writes < 0 {
		return f.Conn.Write(p)
	}
	n, err := f.Conn.Write(p[:min(len(p), f.writes)])
	if f.writes -= n; err == nil && n < len(p) {
		f.Close()
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Wherever the connection to the gateway breaks, in the handshake, the request or
// the reply: the agent sees that it may ask again, and the same token with the
// same key gets the one certificate that there is.
func TestAConnectionCutAtEveryByte(t *testing.T) {
	stride := 13
	if exhaustive() {
		stride = 1
	}
	a, _ := newAuthority(t)
	unlimited := pki.Rate{PerSecond: 1e6, Burst: 1e6}
	base := serve(t, a, pki.HandlerConfig{PerSource: unlimited, Global: unlimited})
	key := newKey(t)
	enrolled := enroll(t, a, "renewing")
	calls := map[string]func(*pki.Client) (*pki.Credential, error){}
	registration := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)}
	calls["register"] = func(c *pki.Client) (*pki.Credential, error) { return c.Register(t.Context(), registration) }
	renewal := pki.Renewal{CSR: csrOf(t, newKey(t)), TLS: enrolled.ClientTLS()}
	calls["renew"] = func(c *pki.Client) (*pki.Credential, error) { return c.Renew(t.Context(), renewal) }

	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			var serial string
			for _, reading := range []bool{true, false} {
				cuts := 0
				for ; ; cuts += stride {
					client := clientOf(a, base)
					client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := new(net.Dialer).DialContext(ctx, network, address)
						if err != nil {
							return nil, err
						}
						if reading {
							return &frayed{conn, cuts, -1}, nil
						}
						return &frayed{conn, -1, cuts}, nil
					}
					c, err := call(client)
					if err == nil {
						require.True(t, serial == "" || serial == c.Serial, "another certificate after a cut")
						serial = c.Serial
						break // there was nothing left to cut
					}
					require.True(t, pki.Temporary(err), "cut at byte %d: %v", cuts, err)
				}
				require.Greater(t, cuts, 500)
				t.Logf("%d cuts, every %d bytes; reading: %t", cuts/stride, stride, reading)
			}
			agent := map[string]string{"register": "edge", "renew": "renewing"}[name]
			want := map[string]int{"register": 1, "renew": 2}[name]
			require.Len(t, certificatesOf(t, a, agent), want)
		})
	}
}
