package tunnel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// onEachCarrier runs a test over real TLS sockets, and in process.
func onEachCarrier(t *testing.T, test func(t *testing.T, g *tunnel.Gateway, a *tunnel.Agent)) {
	for _, carrier := range []string{"mem", "websocket", "quic"} {
		t.Run(carrier, func(t *testing.T) {
			g, a := connect(t, carrier)
			test(t, g, a)
		})
	}
}

func TestHTTPThroughEveryCarrier(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, _ *tunnel.Agent) {
		private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}))
		defer private.Close()
		client := &http.Client{Transport: &http.Transport{DialContext: g.Dialer("agent-1", "alice"), MaxIdleConnsPerHost: 64}}
		defer client.CloseIdleConnections()
		var callers sync.WaitGroup
		for caller := range 32 {
			callers.Go(func() {
				for i := range 8 {
					want := bytes.Repeat([]byte(strconv.Itoa(caller)), 1+i*10_000)
					resp, err := client.Post(private.URL, "text/plain", bytes.NewReader(want))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || !bytes.Equal(want, got) {
						t.Errorf("%d bytes went, %d came back: %v", len(want), len(got), err)
					}
				}
			})
		}
		callers.Wait()
	})
}

func TestATargetThatBreaksIsNotACleanEnd(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, _ *tunnel.Agent) {
		target, accepted := oneConnection(t)
		c, err := g.Dialer("agent-1", "alice")(t.Context(), "tcp", target)
		require.NoError(t, err)
		defer c.Close()
		far := <-accepted
		_, err = far.Write([]byte("half an ans"))
		require.NoError(t, err)
		buf := make([]byte, 11)
		_, err = io.ReadFull(c, buf)
		require.NoError(t, err)
		require.NoError(t, far.SetLinger(0))
		require.NoError(t, far.Close()) // RST
		_, err = c.Read(buf)
		require.ErrorIs(t, err, transport.TargetReset)
		var reset *transport.StreamError
		require.ErrorAs(t, err, &reset)
		require.True(t, reset.Remote)
	})
}

func TestACallerThatResetsBreaksTheTargetsConnection(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, _ *tunnel.Agent) {
		target, accepted := oneConnection(t)
		c, err := g.Dialer("agent-1", "alice")(t.Context(), "tcp", target)
		require.NoError(t, err)
		far := <-accepted
		defer far.Close()
		require.NoError(t, c.(transport.Stream).Reset(transport.Canceled))
		_, err = far.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF, "the target must not take half a request for a whole one")
	})
}

func TestTheEndOfASessionIsNotACleanEndOfItsStreams(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, _ *tunnel.Agent) {
		target, accepted := oneConnection(t)
		c, err := g.Dialer("agent-1", "alice")(t.Context(), "tcp", target)
		require.NoError(t, err)
		defer c.Close()
		far := <-accepted
		defer far.Close()
		s, err := g.Session("agent-1")
		require.NoError(t, err)
		require.NoError(t, s.Close())
		_, err = far.Read(make([]byte, 1))
		require.NotErrorIs(t, err, io.EOF)
		_, err = c.Read(make([]byte, 1))
		var closed *transport.CloseError
		require.ErrorAs(t, err, &closed)
	})
}

func TestBulkBothWaysArrivesWhole(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, _ *tunnel.Agent) {
		target := tcpEcho(t)
		var streams sync.WaitGroup
		for seed := range 8 {
			streams.Go(func() {
				c, err := g.Dialer("agent-1", "alice")(t.Context(), "tcp", target)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				const size = 4 << 20
				sent := sha256.New()
				var writer sync.WaitGroup
				writer.Go(func() {
					source := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size)
					if _, err := io.Copy(io.MultiWriter(c, sent), source); err != nil {
						t.Error(err)
					}
					_ = c.(transport.Stream).CloseWrite()
				})
				received := sha256.New()
				n, err := io.Copy(received, c)
				writer.Wait()
				if err != nil || n != size || !bytes.Equal(sent.Sum(nil), received.Sum(nil)) {
					t.Errorf("%d of %d bytes came back: %v", n, size, err)
				}
			})
		}
		streams.Wait()
	})
}

func TestStalledCallersDelayNobody(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, g *tunnel.Gateway, a *tunnel.Agent) {
		require.NoError(t, a.Handle("test.example/flood", tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
			stream, err := in.Accept(nil)
			if err != nil {
				return
			}
			defer stream.Close()
			for buf := make([]byte, 32<<10); err == nil; {
				_, err = stream.Write(buf)
			}
		})))
		require.NoError(t, a.Handle(echoService, echo))
		s, err := g.Session("agent-1")
		require.NoError(t, err)
		for range 64 {
			stalled, err := s.Open(t.Context(), tunnel.Target{Service: "test.example/flood"})
			require.NoError(t, err)
			defer stalled.Close() // never read
		}
		for range 16 {
			healthy, err := s.Open(t.Context(), echoTarget())
			require.NoError(t, err)
			requireEcho(t, healthy)
			require.NoError(t, healthy.Close())
		}
	})
}

// oneConnection is a private service that hands its connection to the test.
func oneConnection(t *testing.T) (address string, accepted <-chan *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	ch := make(chan *net.TCPConn, 1)
	go func() {
		if c, err := ln.Accept(); err == nil {
			ch <- c.(*net.TCPConn)
		}
	}()
	return ln.Addr().String(), ch
}
