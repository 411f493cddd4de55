package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

func TestBothSidesSeeTheOthersVerifiedCertificate(t *testing.T) {
	agent, gateway := pair(t)

	for name, state := range map[string]tls.ConnectionState{
		"agent-1": gateway.ConnectionState(),
		"gateway": agent.ConnectionState(),
	} {
		require.NotEmpty(t, state.VerifiedChains, name)
		assert.Equal(t, name, state.VerifiedChains[0][0].Subject.CommonName)
		assert.Equal(t, uint16(tls.VersionTLS13), state.Version)
		assert.Equal(t, "outgate/1", state.NegotiatedProtocol)
		assert.False(t, state.DidResume)
	}
}

func TestAConnectionIsNeverResumed(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	base := ca.Agent("agent-1")
	base.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	d := &quic.Dialer{TLSClientConfig: base}

	for range 3 {
		agent, gateway := connect(t, l, d)
		assert.False(t, agent.ConnectionState().DidResume)
		require.NoError(t, agent.CloseWithError(transport.NoError, ""))
		<-gateway.Context().Done()
	}
}

// Dial must not return before the gateway has looked at the certificate, so the
// refusals are Dial's to report.
func TestDialReportsWhoRefusedAndHowToFixIt(t *testing.T) {
	ca, foreign := testca.New(t), testca.New(t)

	gateway := func(change func(*tls.Config)) *tls.Config {
		c := ca.Gateway()
		change(c)
		return c
	}
	foreignAgent := foreign.Agent("agent-1")
	foreignAgent.RootCAs = ca.Pool()
	mistrusts := ca.Agent("agent-1")
	mistrusts.RootCAs = foreign.Pool()
	otherName := ca.Agent("agent-1")
	otherName.ServerName = "other.example.com"
	noCertificate := &tls.Config{
		RootCAs: ca.Pool(),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return new(tls.Certificate), nil
		},
	}
	asServer := ca.Agent("agent-1")
	asServer.Certificates = ca.Gateway().Certificates

	for name, tc := range map[string]struct {
		gateway *tls.Config
		agent   *tls.Config
		code    transport.Code
		remote  bool
		fix     string
	}{
		"an agent of another authority": {ca.Gateway(), foreignAgent, transport.Denied, true, "ClientCAs"},
		"an agent without a certificate, and a gateway that forgot to demand one": {
			gateway(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), noCertificate, transport.Denied, true, "enrol",
		},
		"an agent of another authority, and a gateway that forgot to verify": {
			gateway(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), foreignAgent, transport.Denied, true, "ClientCAs",
		},
		"an agent with a server's certificate":    {ca.Gateway(), asServer, transport.Denied, true, "enrol"},
		"a gateway of another authority":          {ca.Gateway(), mistrusts, transport.Denied, false, "RootCAs"},
		"a gateway of another name":               {ca.Gateway(), otherName, transport.Denied, false, "host in the URL"},
		"a gateway whose configuration is picked": {pickedWithoutCAs(ca), ca.Agent("agent-1"), transport.Protocol, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := quic.Listen("127.0.0.1:0", tc.gateway, quic.ListenConfig{})
			require.NoError(t, err)
			t.Cleanup(func() { _ = l.Close() })

			refused := &quic.Dialer{TLSClientConfig: tc.agent}
			m, err := refused.Dial(soon(t), urlOf(l.Addr()))
			require.Nil(t, m)
			var dial *quic.DialError
			require.ErrorAs(t, err, &dial)
			assert.Equal(t, tc.code, dial.Code, "%v", err)
			assert.Equal(t, tc.remote, dial.Remote, "%v", err)
			assert.ErrorIs(t, err, tc.code)
			assert.NotErrorIs(t, err, net.ErrClosed, "a failed dial is not something closed")
			assert.ErrorContains(t, err, tc.fix)

			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err = l.Accept(ctx)
			assert.ErrorIs(t, err, context.DeadlineExceeded, "the refused connection must not surface")
		})
	}
}

// pickedWithoutCAs is a gateway whose GetConfigForClient would let everybody in.
func pickedWithoutCAs(ca *testca.CA) *tls.Config {
	open := &tls.Config{Certificates: ca.Gateway().Certificates}
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return open, nil }}
}

func TestAPickedConfigurationIsHeldToTheSameRules(t *testing.T) {
	ca, foreign := testca.New(t), testca.New(t)
	picked := ca.Gateway()
	picked.ClientAuth = tls.NoClientCert
	picked.NextProtos = []string{"h3"}
	l, err := quic.Listen("127.0.0.1:0", &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return picked, nil },
	}, quic.ListenConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })

	stranger := foreign.Agent("agent-1")
	stranger.RootCAs = ca.Pool()
	_, err = (&quic.Dialer{TLSClientConfig: stranger}).Dial(soon(t), urlOf(l.Addr()))
	require.ErrorIs(t, err, transport.Denied)

	_, gateway := connect(t, l, &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	assert.Equal(t, "agent-1", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	assert.Equal(t, []string{"h3"}, picked.NextProtos, "the caller's configuration must not change")
}

func TestAGatewayThatIsNotTrustedIsNamedByItsError(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	agent := ca.Agent("agent-1")
	agent.RootCAs = x509.NewCertPool()

	_, err := (&quic.Dialer{TLSClientConfig: agent}).Dial(soon(t), urlOf(l.Addr()))
	var verify *tls.CertificateVerificationError
	require.ErrorAs(t, err, &verify)
}

func TestDialWaitsNoLongerThanItsHandshakeTimeout(t *testing.T) {
	ca := testca.New(t)
	deaf := socket(t)
	t.Cleanup(func() { _ = deaf.Close() })
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), HandshakeTimeout: 100 * time.Millisecond}

	_, err := d.Dial(soon(t), urlOf(deaf.LocalAddr()))
	require.ErrorIs(t, err, transport.Timeout)
	assert.ErrorContains(t, err, "firewall")
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout())
}

func TestDialEndsWithItsContext(t *testing.T) {
	ca := testca.New(t)
	deaf := socket(t)
	t.Cleanup(func() { _ = deaf.Close() })
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")}

	reason := errors.New("the agent is shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
	_, err := d.Dial(ctx, urlOf(deaf.LocalAddr()))
	assert.ErrorIs(t, err, reason)
	assert.ErrorIs(t, err, transport.Canceled)
}

func TestDialTriesEveryAddressOfTheHost(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{})
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)

	// localhost is ::1, too, on most machines; nobody listens there.
	d := &quic.Dialer{TLSClientConfig: ca.Agent("agent-1"), HandshakeTimeout: 2 * time.Second}
	agent, err := d.Dial(soon(t), "https://localhost:"+port+"/with/a/path")
	require.NoError(t, err)
	require.NoError(t, agent.CloseWithError(transport.NoError, ""))
}

func TestDialSaysWhatIsWrongWithItsConfiguration(t *testing.T) {
	ca := testca.New(t)
	good := ca.Agent("agent-1")
	old := ca.Agent("agent-1")
	old.MinVersion, old.MaxVersion = 0, tls.VersionTLS12
	const gateway = "https://127.0.0.1:1"

	for _, tc := range []struct {
		gateway string
		dialer  quic.Dialer
		want    string
	}{
		{"127.0.0.1:443", quic.Dialer{TLSClientConfig: good}, "gateway URL"},
		{"http://127.0.0.1", quic.Dialer{TLSClientConfig: good}, `scheme "http"; use https://`},
		{"wss://127.0.0.1", quic.Dialer{TLSClientConfig: good}, `scheme "wss"`},
		{"https://", quic.Dialer{TLSClientConfig: good}, "no host"},
		{"https://:443", quic.Dialer{TLSClientConfig: good}, "no host"},
		{"https://127.0.0.1:0", quic.Dialer{TLSClientConfig: good}, "not in 1..65535"},
		{"https://127.0.0.1:65536", quic.Dialer{TLSClientConfig: good}, "not in 1..65535"},
		{"https://me:secret@127.0.0.1", quic.Dialer{TLSClientConfig: good}, "holds credentials"},
		{gateway, quic.Dialer{}, "no client certificate"},
		{gateway, quic.Dialer{TLSClientConfig: &tls.Config{}}, "no client certificate"},
		{gateway, quic.Dialer{TLSClientConfig: old}, "TLS 1.3"},
		{gateway, quic.Dialer{TLSClientConfig: good, HandshakeTimeout: -1}, "HandshakeTimeout"},
		{gateway, quic.Dialer{TLSClientConfig: good, Config: quic.Config{MaxStreams: -1}}, "MaxStreams"},
		{gateway, quic.Dialer{TLSClientConfig: good, Config: quic.Config{StreamWindow: 1}}, "StreamWindow"},
		{gateway, quic.Dialer{TLSClientConfig: good, Config: quic.Config{ConnectionWindow: 1 << 20}}, "ConnectionWindow"},
		{gateway, quic.Dialer{TLSClientConfig: good, Config: quic.Config{IdleTimeout: time.Second}}, "IdleTimeout"},
	} {
		m, err := tc.dialer.Dial(t.Context(), tc.gateway)
		require.Nil(t, m)
		require.ErrorContains(t, err, tc.want, "%s", tc.gateway)
		assert.NotContains(t, err.Error(), "secret")
		var dial *quic.DialError
		assert.NotErrorAs(t, err, &dial, "trying again would not help: %v", err)
	}
}

func TestListenSaysWhatIsWrongWithItsConfiguration(t *testing.T) {
	ca := testca.New(t)
	noCAs := ca.Gateway()
	noCAs.ClientCAs = nil
	noCertificate := ca.Gateway()
	noCertificate.Certificates = nil
	old := ca.Gateway()
	old.MinVersion, old.MaxVersion = 0, tls.VersionTLS12

	for _, tc := range []struct {
		tls    *tls.Config
		config quic.ListenConfig
		want   string
	}{
		{nil, quic.ListenConfig{}, "is nil"},
		{noCAs, quic.ListenConfig{}, "no ClientCAs"},
		{noCertificate, quic.ListenConfig{}, "no certificate"},
		{old, quic.ListenConfig{}, "TLS 1.3"},
		{ca.Gateway(), quic.ListenConfig{Backlog: -1}, "negative"},
		{ca.Gateway(), quic.ListenConfig{MaxHandshakes: -1}, "negative"},
		{ca.Gateway(), quic.ListenConfig{MaxHandshakesPerSource: -1}, "negative"},
		{ca.Gateway(), quic.ListenConfig{HandshakeTimeout: -1}, "negative"},
		{ca.Gateway(), quic.ListenConfig{Config: quic.Config{MaxStreams: -1}}, "MaxStreams"},
	} {
		l, err := quic.Listen("127.0.0.1:0", tc.tls, tc.config)
		require.Nil(t, l)
		require.ErrorContains(t, err, tc.want)
	}
}
