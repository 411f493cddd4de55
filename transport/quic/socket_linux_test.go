package quic

import (
	"net"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
)

// The library prints to the process's log when it sizes a socket's buffers and
// the kernel grants less. TestMain fails if anything was printed; this proves
// that there was an occasion to.
func TestTheLibraryDoesNotSizeTheSocket(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	e := newEndpoint(udp)
	t.Cleanup(e.release)
	const small = 64 << 10
	require.NoError(t, udp.SetReadBuffer(small))
	require.NoError(t, udp.SetWriteBuffer(small))

	ours, err := serverTLS(testca.New(t).Gateway())
	require.NoError(t, err)
	l, err := e.transport.Listen(ours, nil)
	require.NoError(t, err)
	require.NoError(t, l.Close())

	assert.True(t, e.socket.(*socket).sized, "from here on the library may use the raw socket")
	read, write := bufferSizes(t, udp)
	assert.Equal(t, 2*small, read, "the kernel counts twice")
	assert.Equal(t, 2*small, write)
}

func TestTheSocketKeepsTheOptimisationsOfTheLibrary(t *testing.T) {
	ca := testca.New(t)
	l, err := Listen("127.0.0.1:0", ca.Gateway(), ListenConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	d := &Dialer{TLSClientConfig: ca.Agent("agent-1")}
	agent, err := d.Dial(t.Context(), "https://"+l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = agent.CloseWithError(0, "") })

	// What the library makes of a socket that it may size, with what that prints.
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = udp.Close() })
	raw := &quic.Transport{Conn: udp}
	t.Cleanup(func() { _ = raw.Close() })
	tlsConfig, err := clientTLS(ca.Agent("agent-2"), "127.0.0.1")
	require.NoError(t, err)
	conn, err := raw.Dial(t.Context(), l.Addr(), tlsConfig, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })

	assert.Equal(t, conn.ConnectionState().GSO, agent.(*mux).conn.ConnectionState().GSO)
}

func bufferSizes(t *testing.T, c *net.UDPConn) (read, write int) {
	t.Helper()
	raw, err := c.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		read, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		require.NoError(t, err)
		write, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
		require.NoError(t, err)
	}))
	return read, write
}
