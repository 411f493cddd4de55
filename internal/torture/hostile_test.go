//go:build linux

package torture

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// attack is what a hostile peer does to a gateway. It returns when the gateway has
// closed its connections, or an error if the gateway does not. One that endures is no
// breach of the protocol: it returns when it has tried for long enough.
type attack struct {
	name       string
	endures    bool
	within     time.Duration // for the close, in a full run; 0 is the usual
	goroutines int           // that the gateway may need for a while; 0 is the usual
	growth     int64         // of the gateway's memory; 0 is the usual
	run        func(ctx context.Context, g *ground) error
}

// ground is where an attack takes place.
type ground struct {
	carrier carrier
	addr    string
	mallory *tls.Config // a good certificate; anything else is up to the attack
}

func TestAHostilePeerLosesItsConnectionAndNobodyElseDoes(t *testing.T) {
	const (
		growth = 32 << 20

		// 5 s for what is late, as long again for a machine under load, and what a
		// carrier takes to say goodbye.
		within     = 12 * time.Second
		goroutines = 100 // on their way out
	)
	beside(t)
	onEachCarrier(t, func(t *testing.T, c carrier) {
		beside(t)
		ca := testca.New(t)
		identity, err := credentialsOf(ca.Gateway(), ca.Pool())
		require.NoError(t, err)
		gateway := spawn(t, order{Role: "gateway", Carrier: c.name, Identities: []credentials{identity}})
		first, err := gateway.answer()
		require.NoError(t, err)
		g := &ground{carrier: c, addr: first.Addr, mallory: ca.Agent("mallory")}
		innocent, _ := runAgent(t, c, ca.Agent("innocent"), "https://"+first.Addr)
		ofCarrier := quicAttacks
		if c.network == "tcp" {
			ofCarrier = webSocketAttacks
		}
		attacks := slices.Concat(tunnelAttacks, ofCarrier)
		if !full {
			attacks = []attack{allAtOnce(ca, attacks)}
		}
		for _, a := range attacks {
			t.Run(a.name, func(t *testing.T) {
				before, err := gateway.ask(question{ResetPeak: true})
				require.NoError(t, err)
				watched := watch(t, innocent)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				began := time.Now()
				require.NoError(t, a.run(ctx, g))
				took := time.Since(began)
				rounds, worst := watched()
				after, err := gateway.ask(question{})
				require.NoError(t, err)
				t.Logf("over after %v; the gateway: %+d MiB at the peak, %+d goroutines after; %d echoes of the innocent, the slowest %v",
					took.Round(time.Millisecond), (after.Peak-before.RSS)>>20, after.Goroutines-before.Goroutines, rounds, worst.Round(time.Microsecond))
				if full && !a.endures {
					require.Less(t, took, cmp.Or(a.within, within), "until the gateway closed the connection")
				}
				require.Less(t, after.Peak-before.RSS, detector*cmp.Or(a.growth, growth), "growth of the gateway")
				require.Less(t, after.Goroutines-before.Goroutines, cmp.Or(a.goroutines, goroutines))
			})
		}
	})
}

// crowd is how many attackers act at the same time.
func crowd() int {
	if full {
		return 30 // no more handshakes than one source may have
	}
	return 3 // of each kind, or they fill the backlog together
}

// allAtOnce saves the time that one attack after the other would take.
func allAtOnce(ca *testca.CA, attacks []attack) attack {
	var mallories []*tls.Config // with one name they would replace each other
	for i := range attacks {
		mallories = append(mallories, ca.Agent(fmt.Sprintf("mallory-%d", i)))
	}
	return attack{
		name: "all at once", endures: true, goroutines: 4 * 1024, growth: 256 << 20,
		run: func(ctx context.Context, g *ground) error {
			return many(len(attacks), func(i int) error {
				if err := attacks[i].run(ctx, &ground{g.carrier, g.addr, mallories[i]}); err != nil {
					return fmt.Errorf("%s: %w", attacks[i].name, err)
				}
				return nil
			})
		},
	}
}

// watch has an agent echo something all the time, on one stream, until the function
// that it returns is called.
func watch(t *testing.T, a *tunnel.Agent) (stop func() (rounds int, worst time.Duration)) {
	t.Helper()
	s, err := a.Open(soon(t), tunnel.Target{Service: echoService})
	require.NoError(t, err)
	_ = s.SetDeadline(time.Now().Add(2 * patience))
	over := make(chan struct{})
	var (
		watching sync.WaitGroup
		rounds   int
		worst    time.Duration
		failed   error
	)
	watching.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			began := time.Now()
			if _, failed = s.Write([]byte("alive?")); failed != nil {
				return
			}
			if _, failed = io.ReadFull(s, make([]byte, 6)); failed != nil {
				return
			}
			rounds++
			worst = max(worst, time.Since(began))
		}
	})
	return func() (int, time.Duration) {
		close(over)
		watching.Wait()
		require.NoError(t, failed, "the stream of the innocent")
		require.NoError(t, s.Close())
		require.NoError(t, oneEcho(soon(t), a.Open), "a new stream of the innocent")
		return rounds, worst
	}
}

// closes waits until the other side has closed a connection.
func closes(ctx context.Context, c net.Conn) error {
	deadline, _ := ctx.Deadline()
	_ = c.SetReadDeadline(deadline)
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the gateway keeps the connection")
	}
	return nil
}

// many runs f at the same time, n times.
func many(n int, f func(i int) error) error {
	failed := make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() { failed[i] = f(i) })
	}
	running.Wait()
	return errors.Join(failed...)
}

// connect makes a connection as an agent would, up to where streams can be opened.
func (g *ground) connect(ctx context.Context) (transport.Mux, error) {
	return g.carrier.dialer(g.mallory).Dial(ctx, "https://"+g.addr)
}

// closesMux waits for the end of m, which is the gateway's doing.
func closesMux(ctx context.Context, m transport.Mux) error {
	defer func() { _ = m.CloseWithError(transport.NoError, "") }()
	select {
	case <-m.Context().Done():
		return nil
	case <-ctx.Done():
		return errors.New("the gateway keeps the connection")
	}
}
