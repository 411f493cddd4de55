package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

const drainTime = 10 * time.Second

// run is the life of the agent; the end of ctx drains it.
func run(ctx context.Context, c *config, in io.Reader, logs io.Writer) (err error) {
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: c.LogLevel}))
	storage, err := pki.OpenFileStorage(c.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storage.Close()) }()
	registrar := c.registrar()
	id, err := identity(ctx, c, storage, registrar, in, log)
	if err != nil {
		return err
	}
	log.Info("enrolled", "agent", id.Agent(), "until", id.Status().NotAfter)

	rules := &policy.File{Path: c.path, Parse: parseRules, Logger: log}
	if err := rules.Reload(); err != nil {
		return err
	}
	if c.Policy.IsZero() {
		log.Warn("there is no policy, so the gateway can reach nothing; add one to the configuration")
	}
	log.Info("policy", "digest", rules.Digest())
	agent := &tunnel.Agent{
		Gateways: c.Gateways,
		Dialers:  c.dialers(id),
		Policy:   rules,
		Name:     id.Agent(),
		Software: "outgate-agent/" + version(),
		Logger:   log,
	}

	// Whichever ends first ends the other: without a certificate there is no
	// tunnel, and without a tunnel nothing to renew it for.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	var running sync.WaitGroup
	running.Go(func() { end(id.Run(life, registrar)) })
	running.Go(func() { _ = rules.Run(life) }) // a policy that was changed counts at once
	running.Go(func() { end(agent.Run(life)) })
	select {
	case <-ctx.Done():
		log.Info("stopping", "within", drainTime)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := agent.Shutdown(drain); err != nil {
			log.Warn("streams were cut", "error", err)
		}
		end(tunnel.ErrAgentClosed)
	case <-life.Done():
	}
	running.Wait()
	if err := context.Cause(life); !errors.Is(err, tunnel.ErrAgentClosed) {
		return err
	}
	return nil
}

// dialers are the transports that the configuration asks for, the preferred one first.
func (c *config) dialers(id *pki.Identity) []transport.Dialer {
	ws := &websocket.Dialer{GetTLSClientConfig: id.ClientTLS, Proxy: http.ProxyFromEnvironment}
	udp := &quic.Dialer{GetTLSClientConfig: id.ClientTLS}
	switch c.Transport {
	case "websocket":
		return []transport.Dialer{ws}
	case "quic":
		return []transport.Dialer{udp}
	default:
		return []transport.Dialer{ws, udp}
	}
}
