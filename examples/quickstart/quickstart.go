package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

const agentName = "quickstart-agent"

type quickstart struct {
	postgres string // connection string; empty: no database
	log      *slog.Logger
	story    *story
}

// run is the whole story.
func (q *quickstart) run(ctx context.Context) (err error) {
	gw, err := startGateway(q.log.With("side", "gateway"))
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	defer func() { err = errors.Join(err, gw.stop(ctx)) }()
	q.story.tell("gateway", "%s for registration, renewal and WebSocket", gw.url)
	q.story.tell("", "%s for QUIC", gw.quicURL)
	q.story.tell("", "pin %s", gw.pin)

	network, err := startPrivateNetwork()
	if err != nil {
		return fmt.Errorf("start the private network: %w", err)
	}
	defer network.stop()
	q.story.tell("private", "%s has a page, %s has another", network.page, network.secret)

	database, err := parseDatabase(ctx, q.postgres)
	if err != nil {
		return err
	}
	allowed := append([]string{network.page}, database.endpoints...)
	rules, err := agentPolicy(allowed)
	if err != nil {
		return fmt.Errorf("the agent's policy: %w", err)
	}
	q.story.tell("policy", "the agent allows %s and nothing else", strings.Join(allowed, ", "))

	token, err := gw.authority.Grant(ctx, pki.Grant{Agent: agentName})
	if err != nil {
		return err
	}
	q.story.tell("token", "%s, good once and for %q only", token, agentName)
	identity, err := pki.Enroll(ctx, new(pki.MemoryStorage), &pki.Client{Gateway: gw.url, Pins: []pki.Pin{gw.pin}}, pki.Registration{Token: token})
	if err != nil {
		return fmt.Errorf("enrol: %w", err)
	}
	q.story.tell("enrolled", "%q has a certificate until %s", identity.Agent(), identity.Status().NotAfter.Format(time.DateOnly))

	agent := &tunnel.Agent{
		Gateways: []string{gw.url},
		Dialers:  []transport.Dialer{&websocket.Dialer{GetTLSClientConfig: identity.ClientTLS}},
		Policy:   rules,
		Name:     identity.Agent(),
		Logger:   q.log.With("side", "agent"),
	}
	err = gw.withAgent(ctx, agent, func(tunnel.Session) error {
		q.story.tell("connected", "by WebSocket")
		if err := q.fetch(ctx, gw, network.page); err != nil {
			return err
		}
		return q.beDenied(ctx, gw, network.secret)
	})
	if err != nil {
		return fmt.Errorf("by WebSocket: %w", err)
	}

	agent = &tunnel.Agent{
		Gateways: []string{gw.quicURL},
		Dialers:  []transport.Dialer{&quic.Dialer{GetTLSClientConfig: identity.ClientTLS}},
		Policy:   rules,
		Name:     identity.Agent(),
		Logger:   q.log.With("side", "agent"),
	}
	err = gw.withAgent(ctx, agent, func(s tunnel.Session) error {
		q.story.tell("connected", "by QUIC")
		if err := q.fetch(ctx, gw, network.page); err != nil {
			return err
		}
		if err := q.reconnect(ctx, gw, s); err != nil {
			return err
		}
		if err := q.fetch(ctx, gw, network.page); err != nil {
			return err
		}
		return q.query(ctx, gw, database)
	})
	if err != nil {
		return fmt.Errorf("by QUIC: %w", err)
	}
	q.story.tell("done", "all of it held")
	return nil
}

// fetch gets the private page with an ordinary http.Client.
func (q *quickstart) fetch(ctx context.Context, gw *gateway, page string) error {
	pool := &http.Transport{DialContext: gw.tunnel.Dialer(agentName, "alice")}
	defer pool.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+page, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: pool}).Do(req)
	if err != nil {
		return fmt.Errorf("fetch the private page: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("fetch the private page: %w", err)
	}
	if resp.StatusCode != http.StatusOK || string(body) != pageText {
		return fmt.Errorf("fetch the private page: got %s and %q", resp.Status, body)
	}
	q.story.tell("fetched", "http://%s: %s, %q", page, resp.Status, body)
	return nil
}

// beDenied tries what the gateway would like and the agent's policy forbids.
func (q *quickstart) beDenied(ctx context.Context, gw *gateway, address string) error {
	conn, err := gw.tunnel.Dialer(agentName, "alice")(ctx, "tcp", address)
	if err == nil {
		conn.Close()
		return fmt.Errorf("the agent reached %s, which its policy does not allow", address)
	}
	var refused *tunnel.OpenError
	if !errors.As(err, &refused) || refused.Code != transport.Denied || !refused.Remote {
		return fmt.Errorf("%s should be denied by the agent: %w", address, err)
	}
	q.story.tell("denied", "%s: %s", address, refused.Reason)
	return nil
}

// reconnect cuts the connection and waits until the agent is back.
func (q *quickstart) reconnect(ctx context.Context, gw *gateway, s tunnel.Session) error {
	cut := time.Now()
	if err := s.Close(); err != nil {
		return err
	}
	select {
	case <-s.Context().Done():
	case <-ctx.Done():
		return fmt.Errorf("cut the connection: %w", context.Cause(ctx))
	}
	q.story.tell("cut", "the gateway dropped the connection")
	if _, err := gw.tunnel.WaitSession(ctx, agentName); err != nil {
		return fmt.Errorf("wait for the agent to come back: %w", err)
	}
	q.story.tell("reconnected", "the agent is back after %s", time.Since(cut).Round(time.Millisecond))
	return nil
}
