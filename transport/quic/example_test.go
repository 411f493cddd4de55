package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// A gateway.
func ExampleListen() {
	var (
		certificate tls.Certificate // of the gateway
		agents      *x509.CertPool  // the authority that signs agents
	)
	listener, err := quic.Listen(":443", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientCAs:    agents,
	}, quic.ListenConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	for {
		agent, err := listener.Accept(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		name := agent.ConnectionState().VerifiedChains[0][0].Subject.CommonName
		log.Printf("%s has connected from %s", name, agent.RemoteAddr())
	}
}

// An agent.
func ExampleDialer() {
	var (
		certificate tls.Certificate // of the agent
		gateways    *x509.CertPool  // the authority that signs gateways
	)
	dialer := &quic.Dialer{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate},
		RootCAs:      gateways,
	}}
	gateway, err := dialer.Dial(context.Background(), "https://gateway.example.com")
	if err != nil {
		log.Fatal(err) // says what to do about it
	}
	defer gateway.CloseWithError(transport.NoError, "agent stops")
}
