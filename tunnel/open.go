package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// longAgo unblocks whatever waits on a stream.
var longAgo = time.Unix(1, 0)

func newID() string { return rand.Text() }

// open asks the peer for a target and returns after it answered.
func (l *link) open(ctx context.Context, t Target) (transport.Stream, error) {
	if l.draining.Load() || l.peerDrain.Load() != nil {
		e := l.openError(ctx, t, transport.Draining)
		e.Code = transport.Draining
		return nil, e
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.openTimeout)
	defer cancel()
	if t.RequestID == "" {
		t.RequestID = newID()
	}
	header := wire.Header{
		Service:     t.Service,
		Address:     t.Address,
		Subject:     t.Subject,
		RequestID:   t.RequestID,
		TraceParent: t.TraceParent,
	}
	if deadline, ok := ctx.Deadline(); ok {
		header.DeadlineMillis = max(1, time.Until(deadline).Milliseconds())
	}

	// Counted from here, so that a dead connection is noticed in busy time and a drain
	// waits for the answer.
	l.streamOpened()
	stream, err := l.ask(ctx, header)
	if err != nil {
		l.streamEnded()
		return nil, l.openError(ctx, t, err)
	}
	l.cfg.counters.opened.Add(1)
	reached := stream.reached
	if reached == "" {
		reached = t.Address
	}
	return &conn{
		Stream:  stream,
		local:   l.mux.LocalAddr(),
		remote:  reachedAddr(t.Service, reached),
		release: l.streamEnded,
	}, nil
}

// answeredStream is a stream that the peer accepted.
type answeredStream struct {
	transport.Stream
	reached string
}

// refusedError is an answer that was no.
type refusedError struct{ reply wire.Reply }

func (e *refusedError) Error() string { return e.reply.Code.String() }

// ask opens a stream and exchanges header and reply.
func (l *link) ask(ctx context.Context, h wire.Header) (*answeredStream, error) {
	select {
	case <-l.welcomed:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stream, err := l.mux.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	reply, err := exchange(ctx, stream, h)
	if err != nil {
		_ = stream.Reset(transport.Canceled)
		return nil, err
	}
	if !reply.OK {
		_ = stream.Close()
		return nil, &refusedError{reply}
	}
	return &answeredStream{Stream: stream, reached: reply.Addr}, nil
}

// exchange sends the header and waits for the reply, both under ctx.
func exchange(ctx context.Context, stream transport.Stream, h wire.Header) (wire.Reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(longAgo) })
	defer stop()
	if err := wire.WriteHeader(stream, h); err != nil {
		return wire.Reply{}, err
	}
	reply, err := wire.ReadReply(stream)
	if err != nil {
		return wire.Reply{}, err
	}
	if !stop() {
		// ctx ended as the reply came in: the deadline may be set at any moment, so
		// the stream is of no use.
		return wire.Reply{}, context.Cause(ctx)
	}
	return reply, nil
}

// openError says why an open failed: the peer's answer, the end of the connection,
// the end of ctx or a broken protocol, in this order.
func (l *link) openError(ctx context.Context, t Target, err error) *OpenError {
	e := &OpenError{Target: t, Err: err}
	if l.cfg.atGateway {
		e.Agent = l.cfg.agent
	}
	var (
		refused *refusedError
		reset   *transport.StreamError
	)
	switch {
	case errors.As(err, &refused):
		e.Code, e.Reason, e.Remote, e.Err = refused.reply.Code, refused.reply.Reason, true, nil
	case l.mux.Context().Err() != nil:
		cause := closeCause(l.mux)
		e.Err = cause
		switch e.Code = cause.Code; e.Code {
		case transport.Draining, transport.Revoked:
		default:
			e.Code = transport.ConnectionLost
		}
	case errors.As(err, &reset):
		e.Code, e.Remote = reset.Code, reset.Remote
	case ctx.Err() != nil:
		e.Code, e.Err = transport.Canceled, context.Cause(ctx)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e.Code = transport.Timeout
		}
	default:
		// A bad header never left, a bad reply came in, or the peer ended the stream
		// where the reply belongs.
		e.Code = transport.Protocol
	}
	return e
}
