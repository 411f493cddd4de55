package muxstress

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	muxtest "github.com/libp2p/go-libp2p/p2p/muxer/testsuite"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport/websocket"
)

func TestOurMultiplexersPassTheSuiteOfLibp2p(t *testing.T) {
	t.Setenv("CI", "true") // gives the suite patience for slow machines
	ca := testca.New(t)
	agent, gateway := ca.Agent("agent-1"), ca.Gateway()
	for name, m := range map[string]network.Multiplexer{
		"native": overWebSocket(agent, gateway, websocket.Config{Multiplexer: websocket.Native}),
		"smux":   overWebSocket(agent, gateway, websocket.Config{Multiplexer: websocket.Smux}),
		"quic":   overQUIC(agent, gateway),
	} {
		t.Run(name, func(t *testing.T) { muxtest.SubtestAll(t, m) })
	}
}
