package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/outgate/outgate/policy"
)

const pageText = "hello from the private network"

// privateNetwork stands for what is behind a firewall: two web servers.
type privateNetwork struct {
	page   string // host:port; the agent's policy allows it
	secret string // it does not allow this one

	server  *http.Server
	serving sync.WaitGroup
}

func startPrivateNetwork() (*privateNetwork, error) {
	page, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	secret, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, page.Close())
	}
	n := &privateNetwork{
		page:   page.Addr().String(),
		secret: secret.Addr().String(),
		server: &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, pageText)
			}),
			ReadHeaderTimeout: 10 * time.Second,
		},
	}
	for _, ln := range []net.Listener{page, secret} {
		n.serving.Go(func() { _ = n.server.Serve(ln) }) // until stop
	}
	return n, nil
}

func (n *privateNetwork) stop() {
	_ = n.server.Close()
	n.serving.Wait()
}

// agentPolicy allows these endpoints, IP addresses with a port. No policy opens
// loopback by accident: each address on it needs a rule of its own that says
// allow_special.
func agentPolicy(endpoints []string) (*policy.Rules, error) {
	var document strings.Builder
	document.WriteString("enable_access_restrictions: true\nallowed_endpoints:\n")
	for _, e := range endpoints {
		fmt.Fprintf(&document, "- {endpoint: %q, allow_special: true}\n", e)
	}
	return policy.Parse(strings.NewReader(document.String()))
}
