package tunnel_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// witness is a policy that remembers what it was asked.
type witness struct {
	policy.SpecialAllower
	mu      sync.Mutex
	byName  map[policy.Target]int
	byAddr  map[netip.AddrPort]int
	refuses func(policy.Request) bool
}

func newWitness(refuses func(policy.Request) bool) *witness {
	return &witness{SpecialAllower: policy.InsecureAllowAll(), refuses: refuses, byName: map[policy.Target]int{}, byAddr: map[netip.AddrPort]int{}}
}

func (w *witness) Authorize(_ context.Context, r policy.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Addr.IsValid() {
		w.byAddr[netip.AddrPortFrom(r.Addr, r.Target.Port)]++
	} else {
		w.byName[r.Target]++
	}
	if w.refuses(r) {
		return &policy.Denied{Target: r.Target, Addr: r.Addr, Reason: "not here"}
	}
	return nil
}

// asked returns how often it was asked about a target by name, and about an address.
func (w *witness) asked(t policy.Target, addr netip.AddrPort) (byName, byAddr int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byName[t], w.byAddr[addr]
}

// canary is a listener that counts who reaches it.
func canary(t *testing.T, network, address string) (at net.Addr, reached func() int) {
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	var mu sync.Mutex
	n := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			n++
			mu.Unlock()
			_, _ = c.Write([]byte("tweet"))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// Every service that an agent has of itself must have a row here: how it reaches the
// network, and the proof that it asks first. What a product adds with Handle reaches the
// network in the product's own code.
func TestEveryServiceOfAnAgentAsksItsPolicyBeforeItReachesTheNetwork(t *testing.T) {
	tcp, tcpReached := canary(t, "tcp", "127.0.0.1:0")
	unix, unixReached := canary(t, "unix", filepath.Join(t.TempDir(), "canary.sock"))
	port := netip.MustParseAddrPort(tcp.String()).Port()
	name := "canary.internal:" + tcp.String()[len("127.0.0.1:"):]
	rows := map[string]struct {
		addresses []string
		addr      netip.AddrPort // asked about before it is reached
		reached   func() int
	}{
		"tcp":  {[]string{tcp.String(), name}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), tcpReached},
		"http": {[]string{tcp.String(), name}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), tcpReached},
		"unix": {[]string{unix.String()}, netip.AddrPort{}, unixReached},
	}
	resolver := fakeResolver(func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})
	services := start(t, nil, nil).session(t).Agent().Services
	require.NotEmpty(t, services)
	for _, service := range services {
		row, known := rows[service]
		require.True(t, known, "service %q reaches the network in a way that this test does not know; add a row", service)
		for _, address := range row.addresses {
			t.Run(service+" "+address, func(t *testing.T) {
				for asked, refuses := range map[string]func(policy.Request) bool{
					"the target":      func(policy.Request) bool { return true },
					"its address":     func(r policy.Request) bool { return r.Addr.IsValid() },
					"another subject": func(r policy.Request) bool { return r.Subject == "mallory" },
				} {
					if asked == "its address" && !row.addr.IsValid() {
						continue
					}
					w, before := newWitness(refuses), row.reached()
					s := start(t, nil, &tunnel.Agent{Policy: w, Resolver: resolver}).session(t)
					_, err := s.Open(t.Context(), tunnel.Target{Service: service, Address: address, Subject: "mallory"})
					require.ErrorIs(t, err, transport.Denied, asked)
					require.Equal(t, before, row.reached(), "reached the network although the policy refused %s", asked)
				}

				w, before := newWitness(func(policy.Request) bool { return false }), row.reached()
				s := start(t, nil, &tunnel.Agent{Policy: w, Resolver: resolver}).session(t)
				for i := 1; i <= 3; i++ {
					c, err := s.Open(t.Context(), tunnel.Target{Service: service, Address: address})
					require.NoError(t, err)
					_, err = c.Read(make([]byte, 1))
					require.NoError(t, err)
					require.NoError(t, c.Close())
					require.Equal(t, before+i, row.reached())
					target, err := policy.ParseTarget(service, address)
					require.NoError(t, err)
					byName, byAddr := w.asked(target, row.addr)
					require.GreaterOrEqual(t, byName, i, "asked for every stream anew")
					if row.addr.IsValid() {
						require.Equal(t, i, byAddr, "asked about the address before each dial")
					}
				}
			})
		}
	}
}
