//go:build linux

package netlab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// stuckAfter is how long a conversation may stand still, whatever happens to the network.
const stuckAfter = 60 * time.Second

// loadCommand makes the gateway use its agents, until it is told to pause.
type loadCommand struct {
	Agents  []string
	Workers int // of each agent
	Seed    uint64
}

// vias are the ways that a conversation may take.
var vias = []string{"service", "tcp", "http"}

// load is mixed traffic: flows of our own service, over TCP and over HTTP, of all sizes,
// some of them with a slow reader.
type load struct {
	node    *node
	gateway *tunnel.Gateway
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
}

func startLoad(n *node, g *tunnel.Gateway, c loadCommand) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{node: n, gateway: g, cancel: cancel}
	for i, agent := range c.Agents {
		for worker := range c.Workers {
			rng := rand.New(rand.NewPCG(c.Seed, uint64(i*c.Workers+worker)))
			l.tasks.Go(func() { l.work(ctx, agent, rng) })
		}
	}
	return l
}

// stop waits until what is under way has ended.
func (l *load) stop() {
	l.cancel()
	l.tasks.Wait()
}

func (l *load) work(ctx context.Context, agent string, rng *rand.Rand) {
	dial := l.gateway.Dialer(agent, "load")
	client := &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		f := flow{Seed: rng.Uint64(), Size: 1 << rng.IntN(21), Chunk: 1 + rng.Int64N(64<<10)}
		f.Size += rng.Int64N(f.Size)
		if rng.IntN(10) == 0 {
			f.Drag = 20 * time.Millisecond
		}
		var moved atomic.Int64
		var e ending
		done := l.watch(agent, &moved)
		via := vias[rng.IntN(len(vias))]
		switch via {
		case "service":
			e = l.converse(f, &moved, func(ctx context.Context) (net.Conn, error) {
				s, err := l.gateway.Session(agent)
				if err != nil {
					return nil, err
				}
				return s.Open(ctx, tunnel.Target{Service: flowService})
			})
		case "tcp":
			e = l.converse(f, &moved, func(ctx context.Context) (net.Conn, error) { return dial(ctx, "tcp", tcpAddress) })
		default:
			corrupt, err := fetch(context.Background(), client, f.Seed, f.Size, &moved)
			e = ending{Clean: corrupt == "" && err == nil, Corrupt: corrupt, Received: moved.Load()}
			if err != nil {
				e.Error, e.Code = err.Error(), codeOf(err)
			}
		}
		done()
		l.node.say(event{Kind: "flow", Agent: agent, Via: via, Ending: e})
		pause := 100 * time.Millisecond
		if !e.Clean {
			pause = 200 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (l *load) converse(f flow, moved *atomic.Int64, open func(context.Context) (net.Conn, error)) ending {
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	c, err := open(ctx)
	if err == nil {
		err = f.writeTo(c)
	}
	if err != nil {
		if c != nil {
			abort(c)
		}
		return ending{Error: err.Error(), Code: codeOf(err)}
	}
	return f.run(c, true, moved)
}

// watch says so when a conversation stands still for too long, once.
func (l *load) watch(agent string, moved *atomic.Int64) (done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	last, since := int64(-1), time.Now()
	var look func()
	look = func() {
		if ctx.Err() != nil {
			return
		}
		if now := moved.Load(); now != last {
			last, since = now, time.Now()
		}
		if still := time.Since(since); still > stuckAfter {
			l.node.say(event{Kind: "stuck", Agent: agent, Code: transport.Timeout, Error: fmt.Sprintf("at byte %d for %s", last, still)})
			return
		}
		time.AfterFunc(time.Second, look)
	}
	look()
	return cancel
}
