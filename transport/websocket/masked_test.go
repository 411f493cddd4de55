package websocket_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// A message of the agent that is cut anywhere: what arrives of it is what was sent,
// and the connection is lost, not broken.
func TestAMaskedMessageThatIsCutDeliversNothingWrong(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{Multiplexer: websocket.Native})
	const size = 3000
	key := [4]byte{0x9f, 0x11, 0x22, 0x33}
	masked := func(frames ...[]byte) []byte {
		all := bytes.Join(frames, nil)
		message := append([]byte{0x82, 0x80 | 126, byte(len(all) >> 8), byte(len(all))}, key[:]...)
		for i, b := range all {
			message = append(message, b^key[i%4])
		}
		return message
	}
	first := masked(
		[]byte{1, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9}, // STREAMS
		[]byte{2, 0, 0, 0, 0, 0, 0, 1})             // OPEN
	second := masked(
		[]byte{3, 0, size >> 8, size & 0xff, 0, 0, 0, 1}, // DATA
		bytes.Repeat([]byte("a"), size),
		[]byte{5, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, size >> 8, size & 0xff}) // END
	for _, cut := range []int{1, 8, 9, 16, 17, 500, 521, 1500, 3000, len(second) - 1} {
		conn, err := (&tls.Dialer{Config: ca.Agent("agent-1")}).DialContext(soon(t), "tcp", l.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(conn, "GET "+websocket.Path+" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
			"Sec-WebSocket-Protocol: "+websocket.NativeSubprotocol+"\r\n\r\n")
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusSwitchingProtocols, answer.StatusCode)
		_, err = conn.Write(first)
		require.NoError(t, err)
		m, err := l.Accept(soon(t))
		require.NoError(t, err)
		s := accepted(t, m)
		_, err = conn.Write(second[:cut])
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		got, err := io.ReadAll(s)
		require.ErrorIs(t, err, transport.ConnectionLost, "cut at byte %d", cut)
		require.Equal(t, transport.ConnectionLost, causeOf(t, m).Code)
		require.True(t, bytes.Equal(bytes.Repeat([]byte("a"), len(got)), got), "cut at byte %d", cut)
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
	}
}
