package tunnel

import "sync/atomic"

// Stats is a snapshot of counters, in the manner of database/sql.DBStats. The
// totals never fall.
type Stats struct {
	Connections int // now
	Streams     int // open now, in either direction

	Opened    uint64 // streams that the other side accepted
	Accepted  uint64 // streams of the other side that reached a handler
	Rejected  uint64 // streams of the other side that were refused before
	Withdrawn uint64 // streams of the other side that were reset because the policy changed
	Audited   uint64 // streams of the other side that only audit_only let pass
	Panics    uint64 // handlers that panicked
	Refused   uint64 // connections that failed the handshake
}

type counters struct {
	opened, accepted, rejected, withdrawn, audited, panics, refused atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Opened:    c.opened.Load(),
		Accepted:  c.accepted.Load(),
		Rejected:  c.rejected.Load(),
		Withdrawn: c.withdrawn.Load(),
		Audited:   c.audited.Load(),
		Panics:    c.panics.Load(),
		Refused:   c.refused.Load(),
	}
}
