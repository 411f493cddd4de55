// Package mem is a transport inside one process: no sockets, no encryption, no
// goroutines. It is for tests of what runs over a tunnel, and works inside the
// bubbles of testing/synctest, where time is free and exact.
//
//	listener := &mem.Listener{Name: "gateway"}
//	dialer := &mem.Dialer{Listener: listener, Name: "agent-1"}
//
//	agent, err := dialer.Dial(ctx, "https://gateway.example.com")
//	gateway, err := listener.Accept(ctx)
//
// Streams are as strict as those of the strictest real carrier: the peer does
// not see a stream before the opener has written to it or ended it, a reset
// loses what was not read yet, and a stream holds its slot until both sides have
// closed or reset it. What works here does not fail elsewhere for relying on
// luck.
//
// # Faults
//
// Cut breaks a connection as a pulled cable does that both sides notice at
// once. Freeze makes it a black hole: both sides send and neither hears, until
// Thaw or Cut. A [Mux] has these methods for one connection, a [Dialer] for all
// that it dialed, a [Listener] for all that were dialed to it.
//
// # synctest
//
// The package keeps no state of its own, so bubbles do not touch each other. A
// Listener, its Dialers and their connections belong to the bubble that first
// used them.
//
// # Not here
//
// Nothing is verified: the certificates in the connection state are made up from
// names and carry no key, so exporting keying material from it panics. Latency,
// loss and reordering are not simulated; a test that wants them needs sockets.
package mem
