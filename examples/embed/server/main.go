// Command server is an http.Server that embeds a gateway: one port for its own
// pages, for registration and for the tunnel. Its operator reaches the admin
// pages of each connected daemon under /agents/NAME/.
//
//	server -listen :8443 -name gateway.example.com -state server-state
package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	listen := flag.String("listen", ":8443", "`address` to listen on")
	name := flag.String("name", "127.0.0.1", "host `name` that daemons dial")
	state := flag.String("state", "server-state", "`directory` for the authority")
	flag.Parse()
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	defer ln.Close()

	// The gateway: who is admitted, who is connected.
	signer, cert, err := pki.LoadOrCreateCA(ctx, *state, *name)
	if err != nil {
		return err
	}
	store, err := pki.OpenFileStore(filepath.Join(*state, "registry"))
	if err != nil {
		return err
	}
	defer store.Close()
	authority := &pki.Authority{Signer: signer, Certificate: cert, Store: store}
	config, err := authority.ServerTLS(tls.VerifyClientCertIfGiven, *name)
	if err != nil {
		return err
	}
	gateway := &tunnel.Gateway{Identify: authority.Identify, Hooks: &tunnel.Hooks{
		SessionStarted: func(a tunnel.AgentInfo) { fmt.Println("connected ", a.ID) },
	}}
	tunnels := websocket.NewListener(websocket.Config{})

	// The server: its own pages, and the gateway beside them.
	password := rand.Text()
	operator := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, pass, _ := r.BasicAuth()
			if user != "operator" || subtle.ConstantTimeCompare([]byte(pass), []byte(password)) != 1 {
				w.Header().Set("WWW-Authenticate", `Basic realm="operator"`)
				http.Error(w, "this is for the operator", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the product's own page") })
	routes.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{}))
	routes.Handle(websocket.Path, tunnels)
	routes.Handle("POST /agents/{name}/token", operator(tokens(authority)))
	daemons := pool(gateway)
	routes.Handle("GET /agents/{name}/{page...}", operator(adminPages(daemons)))
	server := &http.Server{Handler: routes, TLSConfig: config}

	fmt.Printf("listening  %s\npin        %s\npassword   %s\n", ln.Addr(), pki.PinOf(cert), password)
	ended := make(chan error, 2)
	go func() { ended <- gateway.Serve(context.WithoutCancel(ctx), tunnels) }()
	guarded := tunnels.Guard(server, ln) // strangers cost little
	go func() { ended <- server.ServeTLS(guarded, "", "") }()
	select {
	case <-ctx.Done():
	case err = <-ended:
		ended <- err
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = server.Shutdown(drain)
	daemons.CloseIdleConnections() // the gateway would wait for them
	err = errors.Join(err, gateway.Shutdown(drain))
	for range cap(ended) {
		if e := <-ended; !errors.Is(e, tunnel.ErrGatewayClosed) && !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}
