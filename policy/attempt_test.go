package policy

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// DialTarget passes only literals on, for which this cannot happen: it is the second
// lock of the door.
func TestASocketToAnotherAddressIsNotConnected(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	d := &Dialer{Control: func(string, string, syscall.RawConn) error {
		t.Error("asked about an address that was not checked")
		return nil
	}}
	for _, address := range []string{"localhost:" + port, ":" + port, "[::ffff:127.0.0.1]:" + port} {
		_, err := d.attempt(t.Context(), "tcp", address)
		require.ErrorContains(t, err, "which was not checked", address)
	}
}
