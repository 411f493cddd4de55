package websocket_test

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport/websocket"
)

// An agent lives longer than the authority that it began with.
func TestADialerAsksForItsConfigurationAtEachDial(t *testing.T) {
	oldCA, newCA := testca.New(t), testca.New(t)
	now := oldCA.Agent("agent-1")
	d := &websocket.Dialer{
		TLSClientConfig:    oldCA.Agent("agent-1"), // counts for nothing beside the other
		GetTLSClientConfig: func() *tls.Config { return now },
	}
	l := listen(t, newCA.Gateway(), websocket.Config{})
	_, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.Error(t, err)

	now = newCA.Agent("agent-2")
	_, gateway := connect(t, l, d)
	require.Equal(t, "agent-2", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	require.Empty(t, now.NextProtos, "what was returned stays as it was")

	now = nil
	_, err = d.Dial(soon(t), urlOf(l.Addr()))
	require.ErrorContains(t, err, "client certificate")
}
