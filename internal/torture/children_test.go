package torture

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// beGateway serves tunnels and reports when asked.
func beGateway(c carrier, ids []identities, o *order, questions *json.Decoder, answers *json.Encoder) error {
	l, err := c.listen(ids[0].gateway)
	if err != nil {
		return err
	}
	g := &tunnel.Gateway{MaxOpensPerSecond: o.Opens}
	if err := offer(g.Handle); err != nil {
		return err
	}
	go func() { _ = g.Serve(context.Background(), l) }()
	if err := answers.Encode(report{Addr: l.Addr().String()}); err != nil {
		return err
	}
	for {
		var q question
		if err := questions.Decode(&q); err != nil {
			return err
		}
		if err := answers.Encode(measure(q.ResetPeak)); err != nil {
			return err
		}
	}
}

// beAgents connects an agent for each identity and opens streams when asked.
func beAgents(c carrier, ids []identities, o *order, questions *json.Decoder, answers *json.Encoder) error {
	ctx := context.Background()
	var agents []*tunnel.Agent
	for _, id := range ids {
		a := &tunnel.Agent{Gateways: []string{o.URL}, Dialers: []transport.Dialer{c.dialer(id.agent)}, Policy: policy.InsecureAllowAll(), MaxOpensPerSecond: -1}
		agents = append(agents, a)
		go func() { _ = a.Run(ctx) }()
	}
	for _, a := range agents {
		if err := a.WaitConnected(ctx); err != nil {
			return err
		}
	}
	if err := answers.Encode(report{}); err != nil {
		return err
	}
	for {
		var q question
		if err := questions.Decode(&q); err != nil {
			return err
		}
		var r report
		if err := stallAll(ctx, agents, q.Stall); err != nil {
			r.Err = err.Error()
		} else {
			r = measure(q.ResetPeak)
		}
		if err := answers.Encode(r); err != nil {
			return err
		}
	}
}

// stallAll has each agent open n streams that nobody reads, half of them filled by
// either side.
func stallAll(ctx context.Context, agents []*tunnel.Agent, n int) error {
	failed := make([]error, len(agents))
	var opening sync.WaitGroup
	for i, a := range agents {
		opening.Go(func() {
			for j := range n {
				service := floodService
				if j%2 == 1 {
					service = sinkService
				}
				s, err := a.Open(ctx, tunnel.Target{Service: service})
				if err != nil {
					failed[i] = err
					return
				}
				if service == sinkService {
					go flood(s)
				}
			}
		})
	}
	opening.Wait()
	return errors.Join(failed...)
}

// measure says what this process takes.
func measure(resetPeak bool) report {
	debug.FreeOSMemory()
	r := report{Goroutines: runtime.NumGoroutine(), Moved: flooded.Load()}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		r.Err = err.Error()
		return r
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			r.RSS = kib << 10
		case "VmHWM":
			r.Peak = kib << 10
		}
	}
	if resetPeak {
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // see proc(5)
			r.Err = err.Error()
		}
	}
	return r
}
