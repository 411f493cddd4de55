package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/tunnel"
)

// The admin API: JSON over HTTP over a unix socket. An error is a text.
type (
	// gatewayInfo is the answer of GET /gateway.
	gatewayInfo struct {
		URL     string  `json:"url"`
		Pin     pki.Pin `json:"pin"`
		QUIC    bool    `json:"quic"`
		Version string  `json:"version"`
	}

	// tokenRequest and tokenReply are for POST /tokens.
	tokenRequest struct {
		Agent string        `json:"agent,omitempty"`
		TTL   time.Duration `json:"ttl,omitempty"` // nanoseconds; 0: the authority's default
	}
	tokenReply struct {
		Token   string      `json:"token"`
		Gateway gatewayInfo `json:"gateway"`
	}

	// tokenInfo is one element of the answer of GET /tokens.
	tokenInfo struct {
		ID      string          `json:"id"`
		Agent   string          `json:"agent,omitempty"`
		Status  pki.GrantStatus `json:"status"`
		Created time.Time       `json:"created"`
		Expires time.Time       `json:"expires"`
	}

	// revokeRequest is for POST .../revoke, and revokeReply its answer.
	revokeRequest struct {
		Reason string `json:"reason,omitempty"`
	}
	revokeReply struct {
		Certificates int `json:"certificates"` // that were good until now
	}

	// forwardRequest is for POST /forwards, whose answer is a forwardEvent per
	// line for as long as the client listens. The forward ends with it.
	forwardRequest struct {
		Listen string `json:"listen"`
		Agent  string `json:"agent"`
		Target string `json:"target"`
	}
	forwardEvent struct {
		Listening string `json:"listening,omitempty"` // the first event: the address
		Failed    string `json:"failed,omitempty"`    // a connection could not be carried, and why
	}
)

// admin serves the API.
type admin struct{ *server }

func newAdmin(s *server) http.Handler {
	a := &admin{s}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /gateway", a.getGateway)
	routes.HandleFunc("POST /tokens", a.postToken)
	routes.HandleFunc("GET /tokens", a.getTokens)
	routes.HandleFunc("POST /tokens/{id}/revoke", a.revokeToken)
	routes.HandleFunc("GET /agents", a.getAgents)
	routes.HandleFunc("POST /agents/{name}/revoke", a.revokeAgent)
	routes.HandleFunc("POST /forwards", a.postForward)
	return routes
}

func (a *admin) info() gatewayInfo {
	return gatewayInfo{URL: a.url, Pin: a.pin, QUIC: len(a.agents) > 1, Version: version()}
}

func (a *admin) getGateway(w http.ResponseWriter, _ *http.Request) { answer(w, a.info(), nil) }

func (a *admin) postToken(w http.ResponseWriter, r *http.Request) {
	var req tokenRequest
	if !read(w, r, &req) {
		return
	}
	token, err := a.authority.Grant(r.Context(), pki.Grant{Agent: req.Agent, TTL: req.TTL})
	answer(w, tokenReply{Token: token.Reveal(), Gateway: a.info()}, err)
}

func (a *admin) getAgents(w http.ResponseWriter, r *http.Request) {
	list, err := a.listAgents(r.Context())
	answer(w, list, err)
}

func (a *admin) postForward(w http.ResponseWriter, r *http.Request) {
	var req forwardRequest
	if !read(w, r, &req) {
		return
	}
	_, err := policy.ParseTarget("tcp", req.Target)
	if err == nil {
		err = pki.CheckName(req.Agent)
	}
	var ln net.Listener
	if err == nil {
		ln, err = new(net.ListenConfig).Listen(r.Context(), "tcp", req.Listen)
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	events := &eventWriter{w: w}
	events.send(forwardEvent{Listening: ln.Addr().String()})
	dial := a.tunnel.Dialer(req.Agent, "admin")
	err = tunnel.Forward(r.Context(), ln, dial, "tcp", req.Target, func(err error) {
		a.log.Warn("forward", "agent", req.Agent, "target", req.Target, "error", err)
		events.send(forwardEvent{Failed: err.Error()})
	})
	if !errors.Is(err, context.Canceled) {
		events.send(forwardEvent{Failed: err.Error()})
	}
}

// eventWriter writes one line of JSON for each event, at once.
type eventWriter struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

func (e *eventWriter) send(event forwardEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = json.NewEncoder(e.w).Encode(event) // fails when the client is gone, which ends the forward
	_ = http.NewResponseController(e.w).Flush()
}

// read decodes the request into v, or answers why not.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		http.Error(w, fmt.Sprintf("request: %v", err), http.StatusBadRequest)
		return false
	}
	return true
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // fails only when the client is gone
}
