package quic_test

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// refusing returns a socket that fails as sendto does, and what it fails with.
func refusing(t *testing.T, number syscall.Errno) (*deniedConn, error) {
	t.Helper()
	return &deniedConn{PacketConn: socket(t)}, &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendto", number)}
}

func TestAConnectionSurvivesANetworkThatRefusesToSend(t *testing.T) {
	t.Parallel() // it waits most of the time
	ca := testca.New(t)
	for name, number := range map[string]syscall.Errno{
		"a missing route": syscall.ENETUNREACH,
		"a firewall rule": syscall.EPERM,
		"a link is down":  syscall.ENETDOWN,
	} {
		t.Run(name, func(t *testing.T) {
			udp, refusal := refusing(t, number)
			l := listen(t, ca, quic.ListenConfig{})
			agent, gateway := connect(t, l, &quic.Dialer{
				TLSClientConfig: ca.Agent("agent-1"),
				ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return udp, nil },
			})
			opened, accepted := open(t, agent, gateway, "x")
			_, err := io.ReadFull(accepted, make([]byte, 1))
			require.NoError(t, err)

			udp.err.Store(&refusal)
			_, err = opened.Write([]byte("during the outage"))
			require.NoError(t, err)
			<-time.After(500 * time.Millisecond)
			require.NoError(t, agent.Context().Err())
			udp.err.Store(nil)
			got := make([]byte, len("during the outage"))
			_, err = io.ReadFull(accepted, got)
			require.NoError(t, err)
			assert.Equal(t, "during the outage", string(got))
		})
	}
}

func TestADialToNowhereFailsAtOnce(t *testing.T) {
	ca := testca.New(t)
	udp, refusal := refusing(t, syscall.ENETUNREACH)
	udp.err.Store(&refusal)
	d := &quic.Dialer{
		TLSClientConfig: ca.Agent("agent-1"),
		ListenPacket:    func(context.Context, string, string) (net.PacketConn, error) { return udp, nil },
	}
	start := time.Now()
	_, err := d.Dial(soon(t), "https://127.0.0.1:1")
	require.ErrorIs(t, err, transport.Unreachable)
	assert.ErrorIs(t, err, syscall.ENETUNREACH)
	assert.Less(t, time.Since(start), 5*time.Second)
}
