//go:build linux

package netlab

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// This file is the program that a node of the lab runs.

// nodeConfig is what a node learns from its file.
type nodeConfig struct {
	Role    string // "gateway" or "agent"
	Carrier string
	Gateway netip.AddrPort
	Name    string

	Certificate, Key, CA []byte // PEM

	Log        string        // file
	BackoffMax time.Duration // of an agent; 0 is the default
	Quiet      bool          // the tunnel sends no pings: what notices a dead peer is the carrier
}

// event is a line that a node prints.
type event struct {
	At    time.Time
	Kind  string // "ready", "up" and "down" of a connection, "connected", "flow", "open", "stuck"
	Agent string

	// Of "down".
	Code   transport.Code
	Remote bool
	Error  string

	// Of "flow": it ended; of "open": whether it could begin, at the agent that it did.
	Flow   int64
	Via    string
	Ending ending
}

// command is a line that the gateway reads.
type command struct {
	Open  *openCommand
	Load  *loadCommand
	Pause bool // the load stops, and says "idle" when all has ended
}

// openCommand opens one flow through an agent.
type openCommand struct {
	Agent string
	Flow  flow
}

const (
	flowService = "test.example/flow"
	tcpAddress  = "127.0.0.1:8080" // of the private TCP service of every agent
	httpAddress = "127.0.0.1:8081"
	nodeTimeout = 30 * time.Second
)

// node is the state of either role.
type node struct {
	nodeConfig
	carrier carrier
	log     *slog.Logger
	tls     *tls.Config

	mu  sync.Mutex
	out *json.Encoder
}

func runNode(file string) int {
	n, err := newNode(file)
	if err == nil {
		// The end of the input is the end of the lab, or of the process that made it.
		commands := json.NewDecoder(bufio.NewReader(os.Stdin))
		if n.Role == "gateway" {
			err = n.gateway(commands)
		} else {
			err = n.agent(commands)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func newNode(file string) (*node, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	n := &node{out: json.NewEncoder(os.Stdout)}
	if err := json.Unmarshal(text, &n.nodeConfig); err != nil {
		return nil, err
	}
	var known bool
	if n.carrier, known = carrierNamed(n.Carrier); !known {
		return nil, fmt.Errorf("no carrier %q", n.Carrier)
	}
	logFile, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	n.log = slog.New(slog.NewTextHandler(logFile, &slog.HandlerOptions{Level: slog.LevelDebug}))
	pair, err := tls.X509KeyPair(n.Certificate, n.Key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(n.CA)
	n.tls = &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{pair},
		RootCAs:                pool,
		ClientCAs:              pool,
		ServerName:             "localhost", // the certificate is for any address
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true,
	}
	return n, nil
}

func (n *node) liveness() tunnel.Liveness {
	if n.Quiet {
		return tunnel.Liveness{Busy: time.Hour, Idle: time.Hour}
	}
	return tunnel.Liveness{}
}

func (n *node) say(e event) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.out.Encode(e)
}

// watch tells when a connection begins and ends.
func (n *node) watch(mux transport.Mux, agent string) {
	n.say(event{Kind: "up", Agent: agent})
	context.AfterFunc(mux.Context(), func() {
		e := event{At: time.Now(), Kind: "down", Agent: agent}
		cause := context.Cause(mux.Context())
		e.Error = cause.Error()
		if closed, ok := cause.(*transport.CloseError); ok { //nolint:errorlint // the contract says that it is one
			e.Code, e.Remote = closed.Code, closed.Remote
		}
		n.say(e)
	})
}

// watchedDialer and watchedListener see the connections of a node.
type watchedDialer struct {
	transport.Dialer
	node *node
}

func (d watchedDialer) Dial(ctx context.Context, gateway string) (transport.Mux, error) {
	mux, err := d.Dialer.Dial(ctx, gateway)
	if err == nil {
		d.node.watch(mux, d.node.Name)
	}
	return mux, err
}

type watchedListener struct {
	transport.Listener
	node *node
}

func (l watchedListener) Accept(ctx context.Context) (transport.Mux, error) {
	mux, err := l.Listener.Accept(ctx)
	if err == nil {
		l.node.watch(mux, mux.ConnectionState().PeerCertificates[0].Subject.CommonName)
	}
	return mux, err
}

func (n *node) agent(commands *json.Decoder) error {
	stop, err := privateServices(func(e ending) { n.say(event{Kind: "flow", Agent: n.Name, Via: "target", Ending: e}) })
	if err != nil {
		return err
	}
	defer stop()
	a := &tunnel.Agent{
		Gateways:   []string{"https://" + n.Gateway.String()},
		Dialers:    []transport.Dialer{watchedDialer{n.carrier.dialer(n.tls), n}},
		Policy:     policy.InsecureAllowAll(),
		Name:       n.Name,
		BackoffMax: n.BackoffMax,
		Liveness:   n.liveness(),
		Logger:     n.log,
	}
	err = a.Handle(flowService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		stream, err := in.Accept(nil)
		if err != nil {
			return
		}
		f, err := readFlow(stream)
		if err != nil {
			abort(stream)
			return
		}
		n.say(event{Kind: "open", Agent: n.Name, Flow: f.ID})
		n.say(event{Kind: "flow", Agent: n.Name, Flow: f.ID, Ending: f.run(stream, false, new(atomic.Int64))})
	}))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { n.watchState(ctx, a) })
	tasks.Go(func() { _ = a.Run(ctx) })
	n.say(event{Kind: "ready"})
	for {
		var c command
		if err := commands.Decode(&c); err != nil {
			cancel()
			tasks.Wait()
			return ended(err)
		}
	}
}

// watchState tells when the agent is connected.
func (n *node) watchState(ctx context.Context, a *tunnel.Agent) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	for ctx.Err() == nil {
		if st := a.Status(); st.State == tunnel.StateConnected && !st.Since.Equal(since) {
			since = st.Since
			n.say(event{At: since, Kind: "connected", Agent: n.Name})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (n *node) gateway(commands *json.Decoder) error {
	ln, err := n.carrier.listen(net.JoinHostPort("0.0.0.0", strconv.Itoa(int(n.Gateway.Port()))), n.tls)
	if err != nil {
		return err
	}
	g := &tunnel.Gateway{Liveness: n.liveness(), Logger: n.log}
	served := make(chan error, 1)
	go func() { served <- g.Serve(context.Background(), watchedListener{ln, n}) }()
	n.say(event{Kind: "ready"})
	var tasks sync.WaitGroup
	var load *load
	for {
		var c command
		if err := commands.Decode(&c); err != nil {
			if load != nil {
				load.stop()
			}
			_ = g.Close()
			<-served
			tasks.Wait()
			return ended(err)
		}
		switch {
		case c.Open != nil:
			tasks.Go(func() { n.open(g, *c.Open) })
		case c.Load != nil:
			load = startLoad(n, g, *c.Load)
		case c.Pause && load != nil:
			load.stop()
			n.say(event{Kind: "idle"})
			load = nil
		}
	}
}

// open runs one flow as the opener.
func (n *node) open(g *tunnel.Gateway, c openCommand) {
	began := event{Kind: "open", Agent: c.Agent, Flow: c.Flow.ID}
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	s, err := g.WaitSession(ctx, c.Agent)
	if err != nil {
		began.Error = err.Error()
		n.say(began)
		return
	}
	stream, err := s.Open(ctx, tunnel.Target{Service: flowService})
	if err == nil {
		err = c.Flow.writeTo(stream)
	}
	if err != nil {
		began.Error = err.Error()
		n.say(began)
		return
	}
	n.say(began)
	n.say(event{Kind: "flow", Agent: c.Agent, Flow: c.Flow.ID, Ending: c.Flow.run(stream, true, new(atomic.Int64))})
}

func ended(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
