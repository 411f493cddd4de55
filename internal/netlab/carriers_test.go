//go:build linux

package netlab

import (
	"crypto/tls"
	"testing"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
)

// carrier is a way to join a gateway and an agent.
type carrier struct {
	name   string
	udp    bool
	listen func(address string, config *tls.Config) (transport.Listener, error)
	dialer func(config *tls.Config) transport.Dialer
}

// carriers are all that a tunnel can use.
var carriers = []carrier{
	overWebSocket("smux", websocket.Config{Multiplexer: websocket.Smux}),
	overWebSocket("native", websocket.Config{Multiplexer: websocket.Native}),
	{
		name: "quic",
		udp:  true,
		listen: func(address string, config *tls.Config) (transport.Listener, error) {
			return quic.Listen(address, config, quic.ListenConfig{})
		},
		dialer: func(config *tls.Config) transport.Dialer { return &quic.Dialer{TLSClientConfig: config} },
	},
}

func overWebSocket(name string, config websocket.Config) carrier {
	return carrier{
		name: name,
		listen: func(address string, tlsConfig *tls.Config) (transport.Listener, error) {
			return websocket.Listen(address, tlsConfig, config)
		},
		dialer: func(tlsConfig *tls.Config) transport.Dialer {
			return &websocket.Dialer{TLSClientConfig: tlsConfig, Config: config}
		},
	}
}

func carrierNamed(name string) (carrier, bool) {
	for _, c := range carriers {
		if c.name == name {
			return c, true
		}
	}
	return carrier{}, false
}

// onEachCarrier runs a test over every carrier, side by side.
func onEachCarrier(t *testing.T, test func(t *testing.T, c carrier)) {
	t.Parallel()
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}
