// Package cork is for what crypto/tls leaves to the connection below it: to send
// the records of a batch with few system calls. TLS makes one of each record of
// 16 KiB, or of each of the 4 KiB in which a WebSocket library masks.
//
//	tcp -> cork.New -> tls.Client or tls.Server -> WebSocket, internal/mux
//
// A connection that is not corked holds no buffer.
package cork
