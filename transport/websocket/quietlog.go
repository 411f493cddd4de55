package websocket

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quietLog returns a logger for what strangers can cause: no more than so many
// lines in ten seconds. The next line says how many were left out.
func quietLog(log *slog.Logger, lines int) *slog.Logger {
	return slog.New(quietHandler{log.Handler(), &quota{lines: lines}})
}

// quietHandler has no use for groups and attributes of its logger.
type quietHandler struct {
	slog.Handler
	quota *quota
}

func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	leftOut, ok := h.quota.take(r.Time)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r.AddAttrs(slog.Int("left_out_before", leftOut))
	}
	return h.Handler.Handle(ctx, r)
}

type quota struct {
	lines int

	mu      sync.Mutex
	since   time.Time
	written int
	leftOut int
}

// take reports whether there is a line left, and how many were left out before it.
func (q *quota) take(now time.Time) (leftOut int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.since) > 10*time.Second {
		q.since, q.written = now, 0
	}
	if q.written == q.lines {
		q.leftOut++
		return 0, false
	}
	q.written++
	leftOut, q.leftOut = q.leftOut, 0
	return leftOut, true
}
