package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/examples/internal/pgtest"
	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const agentName = "db-network"

// system is a gateway and an agent that is connected to it, in front of a
// database.
type system struct {
	gateway *tunnel.Gateway
	pg      *pgtest.Server
}

// overEachCarrier runs f with a system of each kind.
func overEachCarrier(t *testing.T, pg *pgtest.Server, f func(t *testing.T, s *system)) {
	t.Run("websocket", func(t *testing.T) {
		f(t, start(t, pg, func(g *gateway, i *pki.Identity) (string, transport.Dialer) {
			return g.url, &websocket.Dialer{GetTLSClientConfig: i.ClientTLS}
		}))
	})
	t.Run("quic", func(t *testing.T) {
		f(t, start(t, pg, func(g *gateway, i *pki.Identity) (string, transport.Dialer) {
			return g.quicURL, &quic.Dialer{GetTLSClientConfig: i.ClientTLS}
		}))
	})
}

func start(t *testing.T, pg *pgtest.Server, carrier func(*gateway, *pki.Identity) (string, transport.Dialer)) *system {
	t.Helper()
	g := startGateway(t)
	token, err := g.authority.Grant(t.Context(), pki.Grant{Agent: agentName})
	require.NoError(t, err)
	client := &pki.Client{Gateway: g.url, Pins: []pki.Pin{g.pin}}
	identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), client, pki.Registration{Token: token})
	require.NoError(t, err)

	rules, err := policy.Parse(strings.NewReader(fmt.Sprintf(
		"enable_access_restrictions: true\nallowed_endpoints: [{endpoint: %q, allow_special: true}]\n", pg.Addr())))
	require.NoError(t, err)
	url, dialer := carrier(g, identity)
	agent := &tunnel.Agent{
		Gateways: []string{url},
		Dialers:  []transport.Dialer{dialer},
		Policy:   rules,
		Name:     agentName,
		Resolver: privateDNS{pgtest.Name: netip.MustParseAddr(pg.Host)},
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(context.Background()) }() // until Shutdown
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(t, agent.Shutdown(ctx))
		assert.ErrorIs(t, <-ended, tunnel.ErrAgentClosed)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = g.tunnel.WaitSession(ctx, agentName)
	require.NoError(t, err)
	return &system{gateway: g.tunnel, pg: pg}
}

// privateDNS is what the agent's network knows and the gateway's does not.
type privateDNS map[string]netip.Addr

func (d privateDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if addr, ok := d[host]; ok {
		return []netip.Addr{addr}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

type gateway struct {
	authority    *pki.Authority
	tunnel       *tunnel.Gateway
	url, quicURL string
	pin          pki.Pin
}

func startGateway(t *testing.T) *gateway {
	t.Helper()
	signer, cert, err := pki.NewCA("e2e")
	require.NoError(t, err)
	authority := &pki.Authority{Signer: signer, Certificate: cert, Store: new(pki.MemoryStore)}
	httpsTLS, err := authority.ServerTLS(tls.VerifyClientCertIfGiven, "127.0.0.1")
	require.NoError(t, err)
	quicTLS, err := authority.ServerTLS(tls.RequireAndVerifyClientCert, "127.0.0.1")
	require.NoError(t, err)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	udp, err := quic.Listen("127.0.0.1:0", quicTLS, quic.ListenConfig{})
	require.NoError(t, err)

	web := websocket.NewListener(websocket.Config{})
	routes := http.NewServeMux()
	routes.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{}))
	routes.Handle(websocket.Path, web)
	server := &http.Server{Handler: routes, TLSConfig: httpsTLS, ReadHeaderTimeout: 10 * time.Second}
	g := &tunnel.Gateway{Identify: pki.AgentName}

	ended := make(chan error, 3)
	go func() { ended <- g.Serve(context.Background(), web) }() // until Shutdown
	go func() { ended <- g.Serve(context.Background(), udp) }()
	go func() { ended <- server.ServeTLS(tcp, "", "") }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		assert.NoError(t, g.Shutdown(ctx))
		assert.NoError(t, server.Close())
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
				assert.ErrorIs(t, err, tunnel.ErrGatewayClosed)
			}
		}
	})
	return &gateway{
		authority: authority,
		tunnel:    g,
		url:       "https://" + tcp.Addr().String(),
		quicURL:   "https://" + udp.Addr().String(),
		pin:       pki.PinOf(cert),
	}
}

// dsn names the database as the agent's network knows it, with sslmode
// verify-full.
func (s *system) dsn() string {
	return s.pg.DSNAt(net.JoinHostPort(pgtest.Name, portOf(s)))
}

// throughTunnel makes a driver dial and resolve at the agent.
func (s *system) throughTunnel(c *pgconn.Config) {
	c.DialFunc = pgconn.DialFunc(s.gateway.Dialer(agentName, "e2e"))
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
}

// connect opens one connection to the database.
func (s *system) connect(t *testing.T, adjust func(*pgconn.Config)) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(s.dsn())
	require.NoError(t, err)
	s.throughTunnel(&config.Config)
	if adjust != nil {
		adjust(&config.Config)
	}
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // fails when the test has cut it
	return conn
}

func portOf(s *system) string { return strconv.Itoa(int(s.pg.Port)) }
