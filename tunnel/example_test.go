package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/transport/websocket"
	"github.com/outgate/outgate/tunnel"
)

// What a program has at hand.
var (
	ctx                   = context.Background()
	storage   pki.Storage = &pki.MemoryStorage{}
	registrar             = &pki.Client{Gateway: "https://gateway.example.com"}
	token     pki.Token
	rules     *policy.Rules
	authority *pki.Authority
	routes    = http.NewServeMux()
)

// An agent in a daemon: enrol once, then keep a connection.
func ExampleAgent() {
	identity, err := pki.Enroll(ctx, storage, registrar, pki.Registration{Token: token})
	if err != nil {
		log.Fatal(err)
	}
	go identity.Run(ctx, registrar) // renews the certificate
	agent := &tunnel.Agent{
		Gateways: []string{"https://gateway.example.com"},
		Dialers:  []transport.Dialer{&websocket.Dialer{GetTLSClientConfig: identity.ClientTLS}},
		Policy:   rules, // what may be reached: see policy.Parse
	}
	log.Fatal(agent.Run(ctx))
}

// A gateway in an existing HTTPS server, beside its other routes.
func ExampleGateway() {
	tunnels := websocket.NewListener(websocket.Config{})
	routes.Handle(websocket.Path, tunnels)
	routes.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{}))

	gateway := &tunnel.Gateway{Identify: pki.AgentName}
	go gateway.Serve(ctx, tunnels)

	dial := gateway.Dialer("agent-1", "alice") // agent, and on whose behalf
	conn, err := dial(ctx, "tcp", "db.internal:5432")
	_, _ = conn, err
}

// parse is policy.Parse for rules that are known to be good.
func parse(text string) *policy.Rules {
	rules, err := policy.Parse(strings.NewReader("enable_access_restrictions: true\n" + text))
	if err != nil {
		log.Fatal(err)
	}
	return rules
}

// demo connects an agent and a gateway in this process. Real programs use
// transport/websocket or transport/quic and run the two on different machines.
func demo(agent *tunnel.Agent) (*tunnel.Gateway, func()) {
	listener := &mem.Listener{}
	gateway := &tunnel.Gateway{}
	go gateway.Serve(ctx, listener)
	agent.Gateways = []string{"https://gateway.example.com"}
	agent.Dialers = []transport.Dialer{&mem.Dialer{Listener: listener, Name: "agent-1"}}
	go agent.Run(ctx)
	if _, err := gateway.WaitSession(ctx, "agent-1"); err != nil {
		log.Fatal(err)
	}
	return gateway, func() {
		_ = agent.Shutdown(ctx)
		_ = gateway.Close()
	}
}

// The whole of it: a private web service, an agent whose policy allows it, a gateway
// that fetches a page.
func Example() {
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "a page from the private network")
	}))
	defer private.Close()
	address := private.Listener.Addr().String()

	// Loopback is on the deny floor: only an exact address with allow_special opens it.
	rules, err := policy.Parse(strings.NewReader(fmt.Sprintf(`
enable_access_restrictions: true
allowed_endpoints:
  - {endpoint: %q, allow_special: true}
`, address)))
	if err != nil {
		log.Fatal(err)
	}
	gateway, stop := demo(&tunnel.Agent{Policy: rules})
	defer stop()

	client := http.Client{Transport: &http.Transport{DialContext: gateway.Dialer("agent-1", "alice")}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + address)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	fmt.Println(string(page), err)

	_, err = gateway.Dialer("agent-1", "alice")(ctx, "tcp", "169.254.169.254:80")
	fmt.Println(errors.Is(err, transport.Denied))
	// Output:
	// a page from the private network <nil>
	// true
}

// A product's own service, answered inside the agent's process.
func ExampleAgent_Handle() {
	agent := &tunnel.Agent{Policy: parse(`allowed_endpoints: [{service: example.com/hello}]`)}
	err := agent.Handle("example.com/hello", tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
		stream, err := in.Accept(nil)
		if err != nil {
			return // the caller is gone
		}
		defer stream.Close()
		fmt.Fprintf(stream, "hello %s", in.Target.Subject)
	}))
	if err != nil {
		log.Fatal(err)
	}
	gateway, stop := demo(agent)
	defer stop()

	session, err := gateway.Session("agent-1")
	if err != nil {
		log.Fatal(err)
	}
	stream, err := session.Open(ctx, tunnel.Target{Service: "example.com/hello", Subject: "alice"})
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	text, err := io.ReadAll(stream)
	fmt.Println(string(text), err)
	// Output: hello alice <nil>
}

// An http.Handler of the agent's process, served to the gateway without a port.
func ExampleAgent_Listen() {
	agent := &tunnel.Agent{Policy: parse(`allowed_endpoints: [{service: example.com/admin}]`)}
	listener, err := agent.Listen("example.com/admin")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "admin page of the daemon")
	}))
	gateway, stop := demo(agent)
	defer stop()
	defer listener.Close()

	dial := gateway.Dialer("agent-1", "alice")
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, "example.com/admin", "")
		},
	}}
	resp, err := client.Get("http://daemon/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	fmt.Println(string(page), err)
	// Output: admin page of the daemon <nil>
}

// Callers branch on the code: who said no, and is it worth trying again?
func ExampleOpenError() {
	gateway, stop := demo(&tunnel.Agent{Policy: parse(`allowed_endpoints: ["db.internal:5432"]`)})
	defer stop()
	for _, agent := range []string{"agent-1", "agent-2"} {
		_, err := gateway.Dialer(agent, "alice")(ctx, "tcp", "payroll.internal:443")
		var failed *tunnel.OpenError
		switch {
		case errors.Is(err, transport.Denied):
			fmt.Println("403 forbidden")
		case errors.Is(err, tunnel.ErrNotConnected):
			fmt.Println("503 the agent is away")
		case errors.As(err, &failed) && failed.Temporary():
			fmt.Println("503 try again")
		}
	}
	// Output:
	// 403 forbidden
	// 503 the agent is away
}

// A deployment: new streams go elsewhere, the open ones get half a minute.
func ExampleGateway_Shutdown() {
	gateway := &tunnel.Gateway{}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := gateway.Shutdown(ctx); err != nil {
		fmt.Println("streams were cut:", err)
	}
	fmt.Println("down")
	// Output: down
}

// A local port that leads to a database behind an agent.
func ExampleForward() {
	gateway, stop := demo(&tunnel.Agent{Policy: policy.InsecureAllowAll()})
	defer stop()
	private := httptest.NewServer(http.NotFoundHandler())
	defer private.Close()

	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() {
		done <- tunnel.Forward(ctx, local, gateway.Dialer("agent-1", "alice"), "tcp", private.Listener.Addr().String(), nil)
	}()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + local.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close()
	fmt.Println(resp.Status)
	cancel()
	fmt.Println(<-done)
	// Output:
	// 404 Not Found
	// context canceled
}
