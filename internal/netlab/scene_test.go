//go:build linux

package netlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/internal/testnet"
)

// scene is a gateway and some agents, each on a host of its own.
type scene struct {
	tb      testing.TB
	lab     *testnet.Lab
	carrier carrier
	gateway *process
	agents  []*process
	flows   atomic.Int64 // the last ID
}

// sceneConfig is what tests vary.
type sceneConfig struct {
	agents     int
	backoffMax time.Duration // of the agents; 0 is the default
	quiet      bool          // without pings of the tunnel
	before     func(*scene)  // the hosts are there, the programs not yet; may be nil

	// The gateway and the only agent are joined by a wire with these conditions in both
	// directions, not by the router.
	wire *testnet.Conditions
}

const port = 7443

func newScene(tb testing.TB, c carrier, cfg sceneConfig) *scene {
	tb.Helper()
	s := &scene{tb: tb, lab: newLab(tb), carrier: c}
	ca := testca.New(tb)
	dir := tb.TempDir()
	host := s.lab.Host(tb)
	address := netip.AddrPortFrom(host.Addr, port)
	agentHosts := make([]*testnet.Host, cfg.agents)
	for i := range agentHosts {
		agentHosts[i] = s.lab.Host(tb)
	}
	if cfg.wire != nil {
		wire := s.lab.Wire(tb, agentHosts[0], host, 1)
		wire.Set(testnet.AToB, *cfg.wire)
		wire.Set(testnet.BToA, *cfg.wire)
		address = netip.AddrPortFrom(wire.B, port)
	}
	config := func(role, name string, identity tls.Certificate) string {
		key, err := x509.MarshalPKCS8PrivateKey(identity.PrivateKey)
		require.NoError(tb, err)
		text, err := json.Marshal(nodeConfig{
			Role:        role,
			Carrier:     c.name,
			Gateway:     address,
			Name:        name,
			Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: identity.Leaf.Raw}),
			Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
			CA:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw}),
			Log:         filepath.Join(dir, name+".log"),
			BackoffMax:  cfg.backoffMax,
			Quiet:       cfg.quiet,
		})
		require.NoError(tb, err)
		file := filepath.Join(dir, name+".json")
		require.NoError(tb, os.WriteFile(file, text, 0o600))
		return file
	}
	s.gateway = newProcess(tb, host, "gateway", config("gateway", "gateway", ca.Gateway().Certificates[0]))
	for i, host := range agentHosts {
		name := fmt.Sprintf("agent-%d", i+1)
		file := config("agent", name, ca.Agent(name).Certificates[0])
		s.agents = append(s.agents, newProcess(tb, host, name, file))
	}
	if cfg.before != nil {
		cfg.before(s)
	}
	require.NoError(tb, s.gateway.start())
	for _, a := range s.agents {
		require.NoError(tb, a.start())
	}
	for _, a := range s.agents {
		_, err := a.await(0, time.Minute, func(e event) bool { return e.Kind == "connected" })
		require.NoError(tb, err)
	}
	return s
}

// open begins a flow through an agent and returns when it has begun on both sides.
func (s *scene) open(agent *process, f flow) (flow, error) {
	f.ID = s.flows.Add(1)
	f.Seed = uint64(f.ID) * 0x2545f4914f6cdd1d
	began := func(e event) bool { return e.Kind == "open" && e.Flow == f.ID }
	atGateway, atAgent := s.gateway.mark(), agent.mark()
	s.gateway.tell(command{Open: &openCommand{Agent: agent.name, Flow: f}})
	e, err := s.gateway.await(atGateway, time.Minute, began)
	if err != nil {
		return f, err
	}
	if e.Error != "" {
		return f, fmt.Errorf("open a flow through %s: %s", agent.name, e.Error)
	}
	// What the gateway wrote may still be under way.
	if _, err := agent.await(atAgent, time.Minute, began); err != nil {
		return f, fmt.Errorf("a flow does not reach %s: %w", agent.name, err)
	}
	return f, nil
}

// ending waits for the end of a flow on one side.
func (s *scene) ending(side *process, f flow, timeout time.Duration) (ending, error) {
	e, err := side.await(0, timeout, func(e event) bool { return e.Kind == "flow" && e.Flow == f.ID })
	return e.Ending, err
}

// transfer runs a flow to its end and checks it on both sides.
func (s *scene) transfer(agent *process, f flow, timeout time.Duration) error {
	f, err := s.open(agent, f)
	if err != nil {
		return err
	}
	for _, side := range []*process{s.gateway, agent} {
		e, err := s.ending(side, f, timeout)
		if err != nil {
			return err
		}
		if !e.Clean || e.Corrupt != "" || e.Sent != f.Size || e.Received != f.Size {
			return fmt.Errorf("%s: a flow of %d bytes each way ended with %+v", side.name, f.Size, e)
		}
	}
	return nil
}

// pause waits without a purpose, as the network sees it.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
