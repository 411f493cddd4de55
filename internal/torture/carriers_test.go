package torture

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
)

// carrier is one way to carry a tunnel.
type carrier struct {
	name        string
	network     string // of its packets: tcp or udp
	subprotocol string // of a WebSocket

	listen func(tlsConfig *tls.Config) (transport.Listener, error) // on a free port of loopback
	dialer func(tlsConfig *tls.Config) transport.Dialer

	// window is how many bytes a stream takes in any case, although nobody reads.
	window int

	// exceeds says why many stalled streams hold more than the bound of a process.
	// Empty means that they do not.
	exceeds string

	// hasty says why what had arrived may be lost when a side closes with Timeout.
	// Empty means that it may not.
	hasty string
}

var carriers = []carrier{
	overWebSocket("websocket+native", websocket.NativeSubprotocol, 16<<10, "",
		websocket.Config{Multiplexer: websocket.Native, Budget: websocket.NewBudget(64 << 20)}),
	overWebSocket("websocket+smux", websocket.Subprotocol, 256<<10, "smux grants each stream 256 KiB and takes none of it back",
		websocket.Config{Multiplexer: websocket.Smux}),
	{
		name: "quic", network: "udp", window: 16 << 10,
		hasty: "a peer that is given up has half a second to take over what it has not read; see package quic",
		listen: func(c *tls.Config) (transport.Listener, error) {
			return quic.Listen("127.0.0.1:0", c, quic.ListenConfig{Config: quicConfig})
		},
		dialer: func(c *tls.Config) transport.Dialer {
			return &quic.Dialer{TLSClientConfig: c, HandshakeTimeout: 5 * time.Second, Config: quicConfig}
		},
	},
}

// quicConfig lets a dead peer be noticed as soon as can be: thousands of rounds wait
// for it.
var quicConfig = quic.Config{IdleTimeout: 5 * time.Second}

func overWebSocket(name, subprotocol string, window int, exceeds string, config websocket.Config) carrier {
	return carrier{
		name: name, network: "tcp", subprotocol: subprotocol, window: window, exceeds: exceeds,
		listen: func(c *tls.Config) (transport.Listener, error) {
			return websocket.Listen("127.0.0.1:0", c, config)
		},
		dialer: func(c *tls.Config) transport.Dialer {
			return &websocket.Dialer{TLSClientConfig: c, Config: config}
		},
	}
}

// onEachCarrier runs a test for every carrier.
func onEachCarrier(t *testing.T, test func(t *testing.T, c carrier)) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) { test(t, c) })
	}
}

func urlOf(a net.Addr) string { return "https://" + a.String() }

// identities are the TLS configurations of both sides of a connection.
type identities struct{ agent, gateway *tls.Config }

func newIdentities(tb testing.TB) identities {
	ca := testca.New(tb)
	return identities{agent: ca.Agent("agent-1"), gateway: ca.Gateway()}
}

// pair is a connection, seen from both sides.
type pair struct {
	agent, gateway transport.Mux
	listener       transport.Listener
}

// connect makes a connection. What lies between the two sides forwards to the address
// that it is given and returns its own; it may be nil.
func connect(ctx context.Context, c carrier, ids identities, between func(target net.Addr) (net.Addr, error)) (*pair, error) {
	l, err := c.listen(ids.gateway)
	if err != nil {
		return nil, err
	}
	p := &pair{listener: l}
	addr := l.Addr()
	if between != nil {
		if addr, err = between(addr); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if p.agent, err = c.dialer(ids.agent).Dial(ctx, urlOf(addr)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	accepting, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(p.agent.Context(), cancel)() // the gateway may never know of it
	if p.gateway, err = l.Accept(accepting); err != nil {
		p.close()
		return nil, fmt.Errorf("accept: %w", err)
	}
	cancel()
	return p, nil
}

func (p *pair) close() {
	_ = p.agent.CloseWithError(transport.NoError, "")
	if p.gateway != nil {
		_ = p.gateway.CloseWithError(transport.NoError, "")
	}
	_ = p.listener.Close()
}

// sides returns who writes and who reads in a round: both take turns.
func (p *pair) sides(round int) (writing, reading transport.Mux) {
	if round%2 == 0 {
		return p.agent, p.gateway
	}
	return p.gateway, p.agent
}
