// Command daemon is a daemon that embeds an agent. Its admin pages are for the
// gateway it trusts and for nobody else: it listens on no port at all.
//
//	daemon -gateway https://gateway.example.com -pin sha256:... -token token -state daemon-state
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		os.Exit(1)
	}
}

// adminPages are what the daemon had before.
func adminPages() http.Handler {
	started := time.Now()
	pages := http.NewServeMux()
	pages.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "all is well since %s, %s\n", started.Format(time.TimeOnly), r.RemoteAddr)
	})
	return pages
}

func run(ctx context.Context) (err error) {
	gateway := flag.String("gateway", "", "base `URL` of the gateway")
	tokenFile := flag.String("token", "", "`file` with a token; needed at the first start only")
	state := flag.String("state", "daemon-state", "`directory` for the key and the certificate")
	var pin pki.Pin
	flag.TextVar(&pin, "pin", pki.Pin{}, "`pin` of the gateway")
	flag.Parse()

	var enrol pki.Registration
	if *tokenFile != "" {
		text, err := os.ReadFile(*tokenFile)
		if err != nil {
			return err
		}
		if enrol.Token, err = pki.ParseToken(string(text)); err != nil {
			return err
		}
	}
	storage, err := pki.OpenFileStorage(*state)
	if err != nil {
		return err
	}
	defer storage.Close()
	client := &pki.Client{Gateway: *gateway, Pins: []pki.Pin{pin}}
	identity, err := pki.Enroll(ctx, storage, client, enrol)
	if err != nil {
		return err
	}
	rules, err := policy.Parse(strings.NewReader(
		"{enable_access_restrictions: true, allowed_endpoints: [{service: example.com/admin}]}"))
	if err != nil {
		return err
	}
	agent := &tunnel.Agent{
		Gateways: []string{*gateway},
		Dialers:  []transport.Dialer{&websocket.Dialer{GetTLSClientConfig: identity.ClientTLS}},
		Policy:   rules,
		Name:     identity.Agent(),
	}
	ln, err := agent.Listen("example.com/admin")
	if err != nil {
		return err
	}
	admin := &http.Server{Handler: adminPages(), ReadHeaderTimeout: 10 * time.Second}

	// The first that ends, ends the others.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 3)
	for _, part := range []func() error{
		func() error { return admin.Serve(ln) },
		func() error { return identity.Run(ctx, client) }, // renews the certificate
		func() error { return agent.Run(ctx) },
	} {
		go func() { ended <- part(); cancel() }()
	}
	<-ctx.Done()
	_ = admin.Close()
	for range cap(ended) {
		if e := <-ended; !errors.Is(e, context.Canceled) && !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
