package mem_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

func TestEachSideSeesTheOthersName(t *testing.T) {
	l := &mem.Listener{Name: "gw.example.com"}
	d := &mem.Dialer{Listener: l, Name: "site-7"}
	agent, err := d.Dial(t.Context(), "https://elsewhere.example.com")
	require.NoError(t, err)
	gateway, err := l.Accept(t.Context())
	require.NoError(t, err)
	defer gateway.CloseWithError(transport.NoError, "")

	peer := func(m transport.Mux) *x509.Certificate { return m.ConnectionState().VerifiedChains[0][0] }
	require.Equal(t, "gw.example.com", peer(agent).Subject.CommonName)
	require.Equal(t, "site-7", peer(gateway).Subject.CommonName)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, peer(gateway).ExtKeyUsage)
	require.Equal(t, "mem", agent.LocalAddr().Network())
	require.Equal(t, "site-7:1", agent.LocalAddr().String())
	require.Equal(t, "gw.example.com:443", agent.RemoteAddr().String())
	require.Equal(t, l.Addr(), gateway.LocalAddr())
	require.Equal(t, agent.LocalAddr(), gateway.RemoteAddr())

	again, err := d.Dial(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "site-7:2", again.LocalAddr().String())
	require.NoError(t, again.CloseWithError(transport.NoError, ""))
}

func TestADialerCanPresentACertificate(t *testing.T) {
	l := &mem.Listener{}
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "real"}, Raw: []byte("der")}
	_, err := (&mem.Dialer{Listener: l, Certificate: cert}).Dial(t.Context(), "")
	require.NoError(t, err)
	gateway, err := l.Accept(t.Context())
	require.NoError(t, err)
	require.Same(t, cert, gateway.ConnectionState().PeerCertificates[0])
	require.NoError(t, gateway.CloseWithError(transport.NoError, ""))
}

func TestAClosedListenerRefusesAndEndsWhatWaits(t *testing.T) {
	l := &mem.Listener{}
	d := &mem.Dialer{Listener: l}
	agent, gateway := connect(t, l)
	waiting, err := d.Dial(t.Context(), "")
	require.NoError(t, err)

	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "again")
	require.Equal(t, &transport.CloseError{Code: transport.Draining, Reason: "listener closed", Remote: true},
		context.Cause(waiting.Context()))
	_, err = l.Accept(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = d.Dial(t.Context(), "")
	require.ErrorIs(t, err, transport.Refused)
	open(t, gateway, agent) // accepted ones live on
}

func TestCloseEndsPendingAcceptAndDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &mem.Listener{}
		accepted := make(chan error, 1)
		go func() { _, err := l.Accept(context.Background()); accepted <- err }()
		synctest.Wait()
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-accepted, net.ErrClosed)

		l = &mem.Listener{Backlog: 1}
		d := &mem.Dialer{Listener: l}
		_, err := d.Dial(t.Context(), "")
		require.NoError(t, err)
		dialed := make(chan error, 1)
		go func() { _, err := d.Dial(context.Background(), ""); dialed <- err }()
		synctest.Wait()
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-dialed, transport.Refused)
	})
}

func TestDialWaitsForAPlaceInTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &mem.Listener{Backlog: 2}
		d := &mem.Dialer{Listener: l}
		for range 2 {
			_, err := d.Dial(t.Context(), "")
			require.NoError(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := d.Dial(ctx, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		third := make(chan error, 1)
		go func() { _, err := d.Dial(t.Context(), ""); third <- err }()
		synctest.Wait()
		require.Empty(t, third)
		_, err = l.Accept(t.Context())
		require.NoError(t, err)
		require.NoError(t, <-third)
	})
}

func TestWrongConfigurationsAreErrors(t *testing.T) {
	_, err := (&mem.Dialer{}).Dial(t.Context(), "")
	require.ErrorContains(t, err, "Dialer.Listener is nil")
	for _, l := range []*mem.Listener{{MaxStreams: -1}, {Window: -1}, {Backlog: -1}} {
		_, err := (&mem.Dialer{Listener: l}).Dial(t.Context(), "")
		require.ErrorContains(t, err, "negative")
		_, err = l.Accept(t.Context())
		require.ErrorContains(t, err, "negative")
	}
}
