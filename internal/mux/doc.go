// Package mux multiplexes streams over one connection: the native multiplexer,
// whose bytes are those of "Native mux" in internal/wire/SPEC.md. It implements
// transport.Mux over any reliable net.Conn: TLS, net.Pipe, or an adapter that
// makes a message of each Write.
//
// # How it works
//
// One goroutine reads. It never waits for anything but the connection, so no
// stream holds up another: what the reader of a stream has not taken stays in
// pooled buffers of that stream, up to the credit that its peer was given.
//
// There is no goroutine that writes. Whoever has something to send appends it
// under one lock, and whoever finds nobody writing writes everything that is
// there, in one Write of whole frames. Where that Write could wait for the network
// a goroutine does it that lives as long as there is something to write; over a
// [Corker] it cannot wait, and the caller does it. Either way callers that come
// meanwhile append behind it, and wait only when 64 KiB stand there already.
// What is about streams rather than in them overtakes data.
//
// An idle stream and an idle connection hold no buffers.
//
// # Locks
//
// Stream.mu guards the receiving half of a stream, sender.mu the sending half of
// all streams, Mux.mu the books of the connection. Stream.mu and Mux.mu may be
// held when sender.mu is taken, and no other two together.
package mux
