package mem_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

// A gateway opens a stream, and the agent answers what it reads.
func Example() {
	ctx := context.Background()
	listener := &mem.Listener{Name: "gateway"}
	dialer := &mem.Dialer{Listener: listener, Name: "agent-1"}

	agent, err := dialer.Dial(ctx, "https://gateway.example.com")
	if err != nil {
		log.Fatal(err)
	}
	gateway, err := listener.Accept(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer gateway.CloseWithError(transport.NoError, "")

	go func() {
		stream, err := agent.AcceptStream(ctx)
		if err != nil {
			return
		}
		defer stream.Close()
		if name, err := io.ReadAll(stream); err == nil {
			fmt.Fprintf(stream, "hello, %s", name)
		}
	}()

	stream, err := gateway.OpenStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	fmt.Fprint(stream, "gateway")
	stream.CloseWrite()
	answer, err := io.ReadAll(stream)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(gateway.ConnectionState().PeerCertificates[0].Subject.CommonName, "says:", string(answer))
	// Output: agent-1 says: hello, gateway
}

// A cut shows what code does when the network goes away.
func ExampleMux_Cut() {
	ctx := context.Background()
	listener := &mem.Listener{}
	agent, err := (&mem.Dialer{Listener: listener}).Dial(ctx, "https://gateway.example.com")
	if err != nil {
		log.Fatal(err)
	}
	agent.(*mem.Mux).Cut()

	_, err = agent.AcceptStream(ctx)
	fmt.Println(err, errors.Is(err, transport.ConnectionLost))
	// Output: connection lost true
}
