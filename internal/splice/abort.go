package splice

import (
	"net"

	"github.com/outgate/outgate/transport"
)

// Abort closes c at once so that its other end sees a failure and not an end:
// a stream is reset with code, a TCP connection sends RST (SO_LINGER with zero
// seconds), and a connection that wraps another, such as a *tls.Conn, is cut
// beneath its goodbye. Other kinds know no such end and are closed; the other end
// of a Unix socket sees an end unless it had sent something that was not read.
// Data in flight is lost.
func Abort(c net.Conn, code transport.Code) {
	if s, ok := c.(transport.Stream); ok {
		_ = s.Reset(code)
	}
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		Abort(w.NetConn(), code)
	}
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
