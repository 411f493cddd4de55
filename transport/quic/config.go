package quic

import (
	"cmp"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	defaultMaxStreams       = 1024
	defaultStreamWindow     = 1 << 20
	defaultIdleTimeout      = 9 * time.Second
	defaultDialTimeout      = 10 * time.Second
	defaultHandshakeTimeout = 5 * time.Second

	// freshWindow is what every stream may hold before its reader has read
	// anything. A peer gets it for each stream that could exist, so it is small:
	// what TCP sends first on a new connection. A window doubles per round trip
	// while the reader keeps up.
	freshWindow = 16 << 10

	// grownStreams is how many streams may stall with a full-grown window before
	// they use up the credit that fresh streams do not reserve.
	grownStreams = 256

	// leastPacket is what every path carries (RFC 9000, section 14.1), also one of an
	// MTU of 1280 such as many VPNs are. What more a path carries is found out later.
	leastPacket = 1200

	// minIdleTimeout is where the QUIC implementation cuts the peer's value off.
	minIdleTimeout = 5 * time.Second

	// idleMargin is how much more patience the QUIC implementation has than we: we
	// keep what has arrived, it does not. It takes the lower of both sides' values.
	idleMargin = 2
)

// Config limits one connection. Both sides have their own; each bounds what the
// other may send. The zero value is ready for use.
type Config struct {
	// MaxStreams is how many streams the peer may have open towards this side; a
	// stream is open until both sides have closed or reset it. OpenStream of the
	// peer waits at the limit. A peer that opens more breaks the protocol and loses
	// the connection. Zero means 1024.
	MaxStreams int

	// StreamWindow is the most bytes that one stream holds for a reader that has
	// stopped. It also bounds the speed of one stream: a window per round trip.
	// A stream starts at 16 KiB and grows up to here while its reader keeps up.
	// Zero means 1 MiB. Less than 16 KiB is refused.
	StreamWindow int

	// ConnectionWindow is the most bytes that all streams of the connection hold
	// together; it is what a hostile peer can make this side keep in memory.
	//
	// QUIC stops a whole connection when this is used up by readers that have
	// stopped (RFC 9000, section 4.1), so it has to be large. Zero means room for
	// MaxStreams fresh streams in each direction plus 256 streams at StreamWindow,
	// and a third on top since credit comes back late: 379 MiB with the other
	// defaults. Memory is used only while data waits for its reader. Less than the
	// fresh streams need, 43 MiB by default, is refused.
	ConnectionWindow int

	// IdleTimeout is how long a silent peer is waited for. After a third of it
	// without a packet this side asks for a sign of life, so that a connection
	// without streams stays up, through address translators too, and a peer that
	// vanished is noticed within 9/8 of it, or within twice the peer's value if that
	// is less. Zero means 9 s. Less than 5 s is refused.
	IdleTimeout time.Duration
}

// withLag is the window in which there is always room for so many bytes: the QUIC
// implementation gives credit back when a quarter of the window has been read.
func withLag(room int) int { return room + room/3 + 1 }

// quic returns the configuration of the QUIC implementation. A handshake has the
// time given.
func (c Config) quic(handshake time.Duration) (*quic.Config, error) {
	streams := cmp.Or(c.MaxStreams, defaultMaxStreams)
	window := cmp.Or(c.StreamWindow, defaultStreamWindow)
	idle := cmp.Or(c.IdleTimeout, defaultIdleTimeout)
	if streams < 0 {
		return nil, fmt.Errorf("quic: Config.MaxStreams is %d; leave it zero for %d", streams, defaultMaxStreams)
	}
	if window < freshWindow {
		return nil, fmt.Errorf("quic: Config.StreamWindow is %d bytes; at least %d are needed, zero means %d", window, freshWindow, defaultStreamWindow)
	}
	if idle < minIdleTimeout {
		return nil, fmt.Errorf("quic: Config.IdleTimeout is %v; at least %v is needed, zero means %v", idle, minIdleTimeout, defaultIdleTimeout)
	}
	// A stalled stream cannot grow, but a grown one can stall. Nothing takes its
	// window back, so the sum of what all streams may hold has to fit below the
	// connection's window, which therefore does not grow either. Streams that
	// either side opened count.
	fresh := 2 * streams * freshWindow
	whole := cmp.Or(c.ConnectionWindow, withLag(fresh+grownStreams*(window-freshWindow)))
	if least := withLag(fresh); whole < least {
		return nil, fmt.Errorf("quic: Config.ConnectionWindow is %d bytes; %d streams need at least %d, or stalled ones freeze the connection", whole, streams, least)
	}
	return &quic.Config{
		// The library gives up after twice this value, and after this value of
		// silence. The sum is what a handshaking peer may cost.
		HandshakeIdleTimeout:           max(handshake/2, time.Millisecond),
		MaxIdleTimeout:                 idleMargin * idle,
		KeepAlivePeriod:                idle / 3,
		InitialPacketSize:              leastPacket,
		MaxIncomingStreams:             int64(streams),
		MaxIncomingUniStreams:          1, // the control stream
		InitialStreamReceiveWindow:     freshWindow,
		MaxStreamReceiveWindow:         uint64(window),
		InitialConnectionReceiveWindow: uint64(whole),
		MaxConnectionReceiveWindow:     uint64(whole),
		// A slot comes back when the user ends the stream, not when a closing
		// connection abandons it: that would wake an OpenStream of the peer with a
		// stream instead of the end.
		RequireStreamCreditRelease: true,
		// A closing connection delivers what it had accepted; see stream.abandon.
		EnableStreamResetPartialDelivery: true,
	}, nil
}
