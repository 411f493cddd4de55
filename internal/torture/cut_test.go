package torture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

const (
	cutPieces = 16
	cutPiece  = 3500 // one record each, of more than largeRecord
)

func TestACutAtAnyRecordIsNeverACleanEnd(t *testing.T) {
	t.Parallel() // it waits for silence most of the time
	onEachCarrier(t, func(t *testing.T, c carrier) {
		t.Parallel()
		ids := newIdentities(t)
		busy := make(chan struct{}, 16)
		// How many records there are to cut at, in each direction.
		var records [2]int
		for side := range records {
			o, err := cutRound(t.Context(), c, ids, cut{fromGateway: side == 1, records: -1}, busy)
			require.NoError(t, err)
			require.True(t, o.whole)
			records[side] = o.records
		}
		t.Logf("%d records from the agent, %d from the gateway", records[0], records[1])

		rounds := scaled(t, 1000, 100, "rounds")
		var inHandshake, truncated, whole atomic.Int64
		inParallel(t, rounds, 250, func(i int) error {
			side := i % 2
			places := 2 * (records[side] + 1) // each boundary, and inside each record
			place := i / 2 * max(places, rounds/2) / (rounds / 2) % places
			plan := cut{
				fromGateway: side == 1,
				records:     place / 2,
				inside:      place%2 == 1,
				reset:       i%4 >= 2,
			}
			o, err := cutRound(t.Context(), c, ids, plan, busy)
			switch {
			case err != nil:
				return fmt.Errorf("%+v: %w", plan, err)
			case o.inHandshake:
				inHandshake.Add(1)
			case o.whole:
				whole.Add(1)
			default:
				truncated.Add(1)
			}
			return nil
		})
		t.Logf("cut in the handshake: %d, truncated and detected: %d, complete before the cut: %d",
			inHandshake.Load(), truncated.Load(), whole.Load())
		require.Positive(t, inHandshake.Load())
		require.Positive(t, truncated.Load())
	})
}

// cutOutcome is how a round ended that went as it must.
type cutOutcome struct {
	inHandshake bool // the connection never came about
	whole       bool // all had arrived before
	records     int  // that passed the relay
}

// cutRound sends cutPieces of content through a relay that cuts, each after the one
// before it was read. Up to the cut it is busy: QUIC takes the round trips of a machine
// that is overloaded for the network's, and waits for many of them.
func cutRound(ctx context.Context, c carrier, ids identities, plan cut, busy chan struct{}) (cutOutcome, error) {
	busy <- struct{}{}
	free := sync.OnceFunc(func() { <-busy })
	defer free()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var between *relay
	p, err := connect(ctx, c, ids, func(target net.Addr) (_ net.Addr, err error) {
		if between, err = newRelay(c.network, target, plan); err != nil {
			return nil, err
		}
		return between.addr, nil
	})
	if between == nil {
		return cutOutcome{}, err
	}
	defer between.close()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-between.cut:
			free() // what is left is to wait
		case <-ended:
		}
	}()
	if err != nil {
		if ctx.Err() != nil || !between.wasCut() {
			return cutOutcome{}, fmt.Errorf("connect: %w", err)
		}
		return cutOutcome{inHandshake: true}, nil
	}
	defer p.close()
	side := 0
	if plan.fromGateway {
		side = 1
	}
	writing, reading := p.sides(side)
	read := make(chan struct{}, cutPieces) // one for each piece that was read
	var writes sync.WaitGroup
	writes.Go(func() { _ = writePieces(ctx, writing, read) }) // whether it fails depends on the cut
	got, err := readPieces(ctx, reading, read)
	writes.Wait()
	o := cutOutcome{whole: got == cutPieces*cutPiece, records: int(between.records.Load())}
	switch {
	case errors.As(err, new(*corruption)), errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return o, fmt.Errorf("after %d bytes, cut: %t: %w", got, between.wasCut(), err)
	case err == nil && !o.whole:
		return o, fmt.Errorf("a clean end after %d of %d bytes", got, cutPieces*cutPiece)
	case err == nil:
		return o, nil
	case !between.wasCut():
		return o, fmt.Errorf("no cut, but: %w", err)
	}
	if c.network == "tcp" && got < between.large.Load()*cutPiece {
		return o, fmt.Errorf("%d records of content had arrived, %d bytes were read", between.large.Load(), got)
	}
	o.whole = false // without its end it is not
	return o, lost(err)
}

// writePieces writes a piece for every one that was read, and the end.
func writePieces(ctx context.Context, m transport.Mux, read <-chan struct{}) error {
	s, err := m.OpenStream(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(quiet)); err != nil {
		return err
	}
	w := &writer{Writer: s, content: 1}
	for range cutPieces {
		if err := w.write(cutPiece, cutPiece); err != nil {
			return err
		}
		select {
		case <-read:
		case <-m.Context().Done():
			return context.Cause(m.Context())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.CloseWrite()
}

// readPieces reads to the end and tells for each piece. It returns nil for a clean
// end.
func readPieces(ctx context.Context, m transport.Mux, read chan<- struct{}) (int64, error) {
	s, err := m.AcceptStream(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(quiet)); err != nil {
		return 0, err
	}
	r := &reader{Reader: s, content: 1}
	for range cutPieces {
		if err := r.until(r.offset + cutPiece); err != nil {
			return r.offset, err
		}
		read <- struct{}{}
	}
	return r.offset, r.toEnd()
}

// lost says what is wrong with the error of a call on a connection that the other
// side, or something between, has ended.
func lost(err error) error {
	closed, ok := errors.AsType[*transport.CloseError](err)
	switch {
	case !ok:
		return fmt.Errorf("not a *transport.CloseError: %w", orNone(err))
	case !closed.Remote:
		return fmt.Errorf("Remote is not set: %w", err)
	case !errors.Is(err, net.ErrClosed):
		return fmt.Errorf("it does not match net.ErrClosed: %w", err)
	}
	return nil
}
