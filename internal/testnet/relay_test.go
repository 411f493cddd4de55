package testnet_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that end at once unless something is broken.
const patience = 30 * time.Second

// through connects by way of a TCP relay.
func through(t *testing.T, r *testnet.TCPRelay, ln net.Listener) (near, far net.Conn) {
	t.Helper()
	near, err := net.Dial("tcp", r.Addr())
	require.NoError(t, err)
	far, err = ln.Accept()
	require.NoError(t, err)
	for _, c := range []net.Conn{near, far} {
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	}
	return near, far
}

func tcpRelay(t *testing.T) (*testnet.TCPRelay, net.Listener) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return testnet.RelayTCP(t, ln.Addr().String(), 1), ln
}

func TestATCPRelayPassesBytesAndEnds(t *testing.T) {
	r, ln := tcpRelay(t)
	r.Set(testnet.AToB, testnet.Conditions{Delay: time.Millisecond, Jitter: time.Millisecond})
	near, far := through(t, r, ln)
	want := bytes.Repeat([]byte("0123456789"), 200_000)
	go func() {
		_, _ = near.Write(want)
		_ = near.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	_, err = far.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, far.Close())
	got, err = io.ReadAll(near)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

func TestATCPRelayCutsAtAByte(t *testing.T) {
	r, ln := tcpRelay(t)
	for _, k := range []int64{1, 2, 4095, 40_000} {
		r.CutAfter(testnet.AToB, k)
		near, far := through(t, r, ln)
		go func() { _, _ = near.Write(make([]byte, 50_000)) }()
		got, err := io.ReadAll(far)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.LessOrEqual(t, int64(len(got)), k, "a reset may overtake data")
		_, err = io.ReadAll(near)
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
}

func TestAHalfOpenConnectionLooksAlive(t *testing.T) {
	r, ln := tcpRelay(t)
	near, far := through(t, r, ln)
	_, err := near.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(far, make([]byte, 1))
	require.NoError(t, err)
	r.HalfOpen()
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = near.Write([]byte("is anybody there?"))
	require.NoError(t, err)
	require.NoError(t, near.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = near.Read(make([]byte, 1))
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), err)
}

func TestAUDPRelayPassesDatagramsAndRebinds(t *testing.T) {
	target, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer target.Close()
	require.NoError(t, target.SetDeadline(time.Now().Add(patience)))
	r := testnet.RelayUDP(t, target.LocalAddr().String(), 1)
	client, err := net.Dial("udp", r.Addr())
	require.NoError(t, err)
	defer client.Close()
	require.NoError(t, client.SetDeadline(time.Now().Add(patience)))
	exchange := func() (from string) {
		_, err := client.Write([]byte("question"))
		require.NoError(t, err)
		buf := make([]byte, 100)
		n, addr, err := target.ReadFromUDP(buf)
		require.NoError(t, err)
		require.Equal(t, "question", string(buf[:n]))
		_, err = target.WriteToUDP([]byte("answer"), addr)
		require.NoError(t, err)
		n, err = client.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "answer", string(buf[:n]))
		return addr.String()
	}
	first := exchange()
	require.Equal(t, first, exchange())
	r.Rebind(t)
	require.NotEqual(t, first, exchange())
}
