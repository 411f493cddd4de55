//go:build linux

package websocket_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// topology is a way from agents to a gateway.
type topology struct {
	url      string
	listener *websocket.Listener
	dialer   *websocket.Dialer
	balancer *daemon // or nil
}

// connect makes a connection through the topology.
func (o topology) connect(tb testing.TB) (agent, gateway transport.Mux) {
	tb.Helper()
	agent, err := o.dialer.Dial(soon(tb), o.url)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "end of test") })
	gateway, err = o.listener.Accept(soon(tb))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = gateway.CloseWithError(transport.NoError, "end of test") })
	require.Equal(tb, "agent-1", gateway.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	return agent, gateway
}

// topologies are the ways that are known to work. A balancer drops what was silent
// for idle.
var topologies = map[string]func(tb testing.TB, idle string) topology{
	"A: nginx ends the TLS, the mutual TLS is inside": func(tb testing.TB, idle string) topology {
		ca, public := testca.New(tb), testca.New(tb)
		l := listen(tb, nil, websocket.Config{InnerTLS: ca.Gateway(), AllowPlainHTTP: true})
		d := &websocket.Dialer{TLSClientConfig: named(ca.Agent("agent-1")), OuterTLS: named(outer(public))}
		terminating, _, nginx := nginx(tb, public, l.Addr(), noAddr, idle)
		return topology{terminating, l, d, nginx}
	},
	"B: nginx passes TLS through by SNI": func(tb testing.TB, idle string) topology {
		ca := testca.New(tb)
		l := listen(tb, ca.Gateway(), websocket.Config{})
		_, passing, nginx := nginx(tb, ca, noAddr, l.Addr(), idle)
		return topology{passing, l, &websocket.Dialer{TLSClientConfig: named(ca.Agent("agent-1"))}, nginx}
	},
	"C: haproxy passes TLS through by SNI": func(tb testing.TB, idle string) topology {
		ca := testca.New(tb)
		l := listen(tb, ca.Gateway(), websocket.Config{})
		address := freeAddress(tb)
		haproxy := start(tb, address, "haproxy", "-W", "-db", "-f", configure(tb, "haproxy-sni.cfg", map[string]string{
			"Listen": address, "Passthrough": l.Addr().String(), "Idle": idle,
		}))
		return topology{"https://" + address, l, &websocket.Dialer{TLSClientConfig: named(ca.Agent("agent-1"))}, haproxy}
	},
	"D: one port for everything, no balancer": func(tb testing.TB, _ string) topology {
		ca := testca.New(tb)
		l, url := onePort(tb, ca)
		return topology{url, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}, nil}
	},
}

// noAddr is a gateway that is not there.
var noAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

// named makes c ask for the name by which balancers know the gateway.
func named(c *tls.Config) *tls.Config {
	c.ServerName = "localhost"
	return c
}

// nginx runs one that ends TLS at one URL and passes it through at the other.
func nginx(tb testing.TB, public *testca.CA, plain, passthrough net.Addr, idle string) (terminating, passing string, _ *daemon) {
	tb.Helper()
	return nginxWith(tb, "TLSv1.2 TLSv1.3", public, plain, passthrough, idle)
}

func nginxWith(tb testing.TB, protocols string, public *testca.CA, plain, passthrough net.Addr, idle string) (terminating, passing string, _ *daemon) {
	tb.Helper()
	http, stream := freeAddress(tb), freeAddress(tb)
	path := configure(tb, "nginx.conf", map[string]string{
		"Dir": tb.TempDir(), "Protocols": protocols, "Certificate": pemFile(tb, public), "Idle": idle,
		"HTTPListen": http, "Plain": plain.String(), "StreamListen": stream, "Passthrough": passthrough.String(),
	})
	d := start(tb, http, "nginx", "-c", path, "-e", filepath.Join(tb.TempDir(), "early.log"))
	return "https://" + http, "https://" + stream, d
}

// onePort is an http.Server that enrols agents without a certificate and takes the
// tunnels of those that have one.
func onePort(tb testing.TB, ca *testca.CA) (*websocket.Listener, string) {
	tb.Helper()
	l := websocket.NewListener(websocket.Config{})
	routes := http.NewServeMux()
	routes.Handle(websocket.Path, l)
	routes.HandleFunc("POST /outgate/v1/register", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			_, _ = io.WriteString(w, "a certificate")
		}
	})
	c := ca.Gateway()
	c.ClientAuth = tls.VerifyClientCertIfGiven
	server := &http.Server{Handler: routes, TLSConfig: c}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	guarded := l.Guard(server, socket)
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(guarded, "", "") }()
	tb.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
		_ = l.Close()
	})
	return l, urlOf(socket.Addr())
}

// onEach runs a test in every topology; balanced leaves out the one that has nothing
// between agent and gateway.
func onEach(t *testing.T, idle string, balanced bool, f func(*testing.T, topology)) {
	for name, make := range topologies {
		if balanced && strings.HasPrefix(name, "D") {
			continue
		}
		t.Run(name, func(t *testing.T) { f(t, make(t, idle)) })
	}
}

func TestTunnelsWorkInEveryTopology(t *testing.T) {
	onEach(t, "1h", false, func(t *testing.T, o topology) {
		agent, gateway := o.connect(t)
		carries(t, agent, gateway)
		for _, way := range [][2]transport.Mux{{agent, gateway}, {gateway, agent}} {
			bulkBothWays(t, way[0], way[1])
		}
		require.NoError(t, gateway.CloseWithError(transport.Revoked, "your key is lost"))
		require.Equal(t, transport.CloseError{Code: transport.Revoked, Reason: "your key is lost", Remote: true}, *causeOf(t, agent))
	})
}

// bulkBothWays sends 8 MiB each way at once over one stream. The opener ends its
// direction first and the other goes on.
func bulkBothWays(t *testing.T, from, to transport.Mux) {
	t.Helper()
	there, back := make([]byte, 8<<20), make([]byte, 8<<20)
	_, _ = rand.Read(there)
	_, _ = rand.Read(back)
	opened, accepted := open(t, from, to)
	deadline := time.Now().Add(2 * time.Minute) // a bound for machines that are busy
	require.NoError(t, opened.SetDeadline(deadline))
	require.NoError(t, accepted.SetDeadline(deadline))
	wrote := make(chan error, 2)
	go func() {
		_, err := opened.Write(there)
		if err == nil {
			err = opened.CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(accepted)
	require.NoError(t, err)
	require.True(t, bytes.Equal(there, got))
	require.NoError(t, <-wrote)
	go func() {
		_, err := accepted.Write(back)
		if err == nil {
			err = accepted.Close()
		}
		wrote <- err
	}()
	got, err = io.ReadAll(opened)
	require.NoError(t, err)
	require.True(t, bytes.Equal(back, got))
	require.NoError(t, <-wrote)
}

func TestABalancerThatDiesIsALostConnectionForBoth(t *testing.T) {
	onEach(t, "1h", true, func(t *testing.T, o topology) {
		agent, gateway := o.connect(t)
		opened, accepted := open(t, agent, gateway)
		_, err := opened.Write([]byte("half of it"))
		require.NoError(t, err)
		half := make([]byte, 10)
		_, err = io.ReadFull(accepted, half)
		require.NoError(t, err)
		require.NoError(t, o.balancer.kill())
		for side, m := range map[string]transport.Mux{"agent": agent, "gateway": gateway} {
			require.Equal(t, transport.ConnectionLost, causeOf(t, m).Code, side)
		}
		_, err = io.ReadAll(accepted)
		require.ErrorIs(t, err, transport.ConnectionLost, "this is no end of the stream")
	})
}

func TestABalancerThatReloadsKeepsTunnelsAndTakesNewOnes(t *testing.T) {
	onEach(t, "1h", true, func(t *testing.T, o topology) {
		agent, gateway := o.connect(t)
		reload := syscall.SIGHUP // nginx
		if strings.HasSuffix(o.balancer.cmd.Path, "haproxy") {
			reload = syscall.SIGUSR2
		}
		require.NoError(t, o.balancer.cmd.Process.Signal(reload))
		for range 10 { // some of them during the reload
			_, err := o.dialer.Dial(soon(t), o.url)
			require.NoError(t, err)
			m, err := o.listener.Accept(soon(t))
			require.NoError(t, err)
			require.NoError(t, m.CloseWithError(transport.NoError, ""))
			carries(t, agent, gateway)
		}
	})
}

func TestABalancerThatShutsDownIsALostConnectionForBoth(t *testing.T) {
	onEach(t, "1h", true, func(t *testing.T, o topology) {
		agent, gateway := o.connect(t)
		require.NoError(t, o.balancer.cmd.Process.Signal(syscall.SIGTERM)) // "fast shutdown" in both
		for side, m := range map[string]transport.Mux{"agent": agent, "gateway": gateway} {
			require.Equal(t, transport.ConnectionLost, causeOf(t, m).Code, side)
		}
	})
}

// The pings of the tunnel are what keeps a balancer from dropping a tunnel that has
// nothing else to say.
func TestABalancerDropsATunnelThatIsSilentForItsTimeoutAndNoOther(t *testing.T) {
	t.Parallel()
	onEach(t, "3s", true, func(t *testing.T, o topology) {
		t.Parallel()
		agent, gateway := o.connect(t)
		opened, accepted := open(t, agent, gateway)
		go func() { _, _ = io.Copy(accepted, accepted) }()
		for range 15 { // longer than the timeout
			_, err := opened.Write([]byte("ping"))
			require.NoError(t, err)
			_, err = io.ReadFull(opened, make([]byte, 4))
			require.NoError(t, err)
			<-time.After(300 * time.Millisecond)
		}
		require.NoError(t, agent.Context().Err())
		for side, m := range map[string]transport.Mux{"agent": agent, "gateway": gateway} {
			require.Equal(t, transport.ConnectionLost, causeOf(t, m).Code, side)
		}
	})
}

func TestMutualTLSOutsideFailsWhereNginxEndsItAndNamesTheFix(t *testing.T) {
	ca, public := testca.New(t), testca.New(t)
	outside := websocket.NewListener(websocket.Config{})
	t.Cleanup(func() { _ = outside.Close() })
	gateways := map[string]net.Addr{
		"a gateway for it inside":  listen(t, nil, websocket.Config{InnerTLS: ca.Gateway(), AllowPlainHTTP: true}).Addr(),
		"a gateway for it outside": servePlain(t, outside),
	}
	for name, address := range gateways {
		t.Run(name, func(t *testing.T) {
			url, _, _ := nginx(t, public, address, noAddr, "1h")
			mistaken := named(ca.Agent("agent-1"))
			_, err := (&websocket.Dialer{TLSClientConfig: mistaken}).Dial(soon(t), url)
			require.ErrorContains(t, err, "set Dialer.OuterTLS", "nginx is not the gateway")
			mistaken.RootCAs = public.Pool()
			_, err = (&websocket.Dialer{TLSClientConfig: mistaken}).Dial(soon(t), url)
			var refused *websocket.HandshakeError
			require.ErrorAs(t, err, &refused)
			require.Contains(t, refused.Reason, "OuterTLS")
			require.ErrorIs(t, err, transport.Denied)
		})
	}
	t.Run("nginx without TLS 1.3", func(t *testing.T) {
		url, _, _ := nginxWith(t, "TLSv1.2", public, noAddr, noAddr, "1h")
		_, err := (&websocket.Dialer{TLSClientConfig: named(ca.Agent("agent-1"))}).Dial(soon(t), url)
		require.ErrorContains(t, err, "set Dialer.OuterTLS")
	})
}

func TestOnePortEnrolsAgentsAndTakesTheirTunnels(t *testing.T) {
	ca := testca.New(t)
	l, url := onePort(t, ca)
	rt := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	defer rt.CloseIdleConnections()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/outgate/v1/register", nil)
	require.NoError(t, err)
	w, err := rt.RoundTrip(r)
	require.NoError(t, err)
	text, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	require.NoError(t, w.Body.Close())
	require.Equal(t, "a certificate", string(text))

	agent, gateway := topology{url, l, &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}, nil}.connect(t)
	carries(t, agent, gateway)
	w, text2 := request(t, &tls.Config{RootCAs: ca.Pool()}, url, nil)
	assert.Equal(t, http.StatusForbidden, w.StatusCode)
	assert.Contains(t, text2, "client certificate")
}
