package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/outgate/outgate/pki"
)

// An authority in memory admits an agent, and no longer once it is revoked. In
// production the key comes from LoadOrCreateCA or a KMS, and the store from
// OpenFileStore or a database.
func ExampleAuthority() {
	ctx := context.Background()
	signer, cert, err := pki.NewCA("example.com")
	if err != nil {
		log.Fatal(err)
	}
	authority := &pki.Authority{
		Signer:      signer,
		Certificate: cert,
		Store:       new(pki.MemoryStore),
		TrustDomain: "example.com",
	}

	token, err := authority.Grant(ctx, pki.Grant{Agent: "prod-eu", TTL: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	// token.Reveal() is what the agent's owner gets to see, once. Here agent and
	// authority share a process, and the authority is the agent's registrar.
	identity, err := pki.Enroll(ctx, new(pki.MemoryStorage), authority, pki.Registration{Token: token})
	if err != nil {
		log.Fatal(err)
	}
	leaf := identity.Certificate().Leaf
	fmt.Println(leaf.URIs[0])
	fmt.Println("valid:", authority.Verify(ctx, leaf) == nil)

	revoked, err := authority.Revoke(ctx, pki.Revocation{Agent: "prod-eu", Reason: "decommissioned"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("revoked:", len(revoked))
	fmt.Println("valid:", authority.Verify(ctx, leaf) == nil)
	// Output:
	// outgate://example.com/agent/prod-eu
	// valid: true
	// revoked: 1
	// valid: false
}

// One HTTPS port for registration, renewal and whatever else the server does.
func ExampleHandler() {
	ctx := context.Background()
	signer, cert, err := pki.LoadOrCreateCA(ctx, "/var/lib/gateway/ca", "example.com")
	if err != nil {
		log.Fatal(err)
	}
	store, err := pki.OpenFileStore("/var/lib/gateway/registry")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	authority := &pki.Authority{Signer: signer, Certificate: cert, Store: store, Logger: slog.Default()}
	config, err := authority.ServerTLS(tls.VerifyClientCertIfGiven, "gateway.example.com")
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{}))
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		name, err := pki.AgentName(*r.TLS)
		if err != nil {
			http.Error(w, "agents only", http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(w, name)
	})
	server := &http.Server{
		Addr:              ":443",
		Handler:           mux,
		TLSConfig:         config,
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Println("agents pin", pki.PinOf(cert))
	log.Fatal(server.ListenAndServeTLS("", ""))
}

// An agent that meets its gateway for the first time knows it by a pin.
func ExampleClient() {
	ctx := context.Background()
	pin, err := pki.ParsePin("sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
	if err != nil {
		log.Fatal(err)
	}
	token, err := pki.ParseToken("0123456789abcdef.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
	if err != nil {
		log.Fatal(err)
	}
	storage, err := pki.OpenFileStorage("/var/lib/agent")
	if err != nil {
		log.Fatal(err)
	}
	defer storage.Close()

	client := &pki.Client{
		Gateway: "https://gateway.example.com",
		Pins:    []pki.Pin{pin},
		Proxy:   http.ProxyFromEnvironment,
	}
	identity, err := pki.Enroll(ctx, storage, client, pki.Registration{Token: token, Hostname: "db-1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("I am", identity.Agent())
}

// An agent with two gateways, behind a proxy, on a machine that may be switched
// off for a month. Enroll waits for a gateway as long as ctx lives.
func ExampleEnroller() {
	ctx := context.Background()
	storage, err := pki.OpenFileStorage("/var/lib/agent")
	if err != nil {
		log.Fatal(err)
	}
	defer storage.Close()
	var gateways pki.Failover
	for _, url := range []string{"https://eu.gateway.example.com", "https://us.gateway.example.com"} {
		gateways = append(gateways, &pki.Client{Gateway: url, Proxy: http.ProxyFromEnvironment})
	}
	enroller := &pki.Enroller{
		Storage:      storage,
		Registrar:    gateways,
		RenewalGrace: 30 * 24 * time.Hour,
		Logger:       slog.Default(),
	}
	identity, err := enroller.Enroll(ctx, pki.Registration{})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(identity.Run(ctx, gateways))
}

// At every start after the first, the identity is in the storage. Run keeps it
// fresh, and each connection is made with what is newest.
func ExampleIdentity_Run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	storage, err := pki.OpenFileStorage("/var/lib/agent")
	if err != nil {
		log.Fatal(err)
	}
	defer storage.Close()
	identity, err := pki.Load(ctx, storage)
	if err != nil {
		log.Fatal(err)
	}
	identity.Logger = slog.Default()

	done := make(chan error, 1)
	go func() { done <- identity.Run(ctx, &pki.Client{Gateway: "https://gateway.example.com"}) }()

	conn, err := tls.Dial("tcp", "gateway.example.com:443", identity.ClientTLS())
	if err != nil {
		log.Fatal(err)
	}
	conn.Close()

	cancel()
	fmt.Println("stopped:", <-done)
}

// The id of a token may be logged. Its secret shows only where it is asked for.
func ExampleToken() {
	token, err := pki.ParseToken("0123456789abcdef.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token)
	fmt.Println(token.ID())
	// Output:
	// 0123456789abcdef.[redacted]
	// 0123456789abcdef
}

// Only the name in a verified certificate counts, here in the hook of a server
// that speaks no HTTP.
func ExampleAgentName() {
	config := &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  x509.NewCertPool(), // the agents' authority
		VerifyConnection: func(cs tls.ConnectionState) error {
			name, err := pki.AgentName(cs)
			if err != nil {
				return err
			}
			slog.Info("agent connected", "name", name)
			return nil
		},
	}
	_ = config
}
