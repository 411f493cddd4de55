package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

// The eight ways to end are: close and reset, by either side, in this file; kill -9
// in killed_test.go; a cut at any record in cut_test.go; a WebSocket close frame of
// a middlebox and a QUIC close in closed_test.go.

func TestAStreamThatWasClosedIsWholeAndOneThatWasResetIsNot(t *testing.T) {
	ways := []struct {
		name string
		end  func(ctx context.Context, c carrier, p *pair, round, side int) error
		side int
	}{
		{"closed by the agent", closeRound, 0},
		{"closed by the gateway", closeRound, 1},
		{"reset by the agent", resetRound, 0},
		{"reset by the gateway", resetRound, 1},
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		pairs := manyPairs(t, c, 4)
		for _, way := range ways {
			t.Run(way.name, func(t *testing.T) {
				inParallel(t, scaled(t, 1000, 100, "rounds"), cap(pairs), func(i int) error {
					p := <-pairs
					defer func() { pairs <- p }()
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					return way.end(ctx, c, p, i, way.side)
				})
			})
		}
	})
}

// manyPairs makes connections that last until the end of the test.
func manyPairs(t *testing.T, c carrier, n int) chan *pair {
	ids := newIdentities(t)
	pairs := make(chan *pair, n)
	for range n {
		p, err := connect(soon(t), c, ids, nil)
		require.NoError(t, err)
		t.Cleanup(p.close)
		pairs <- p
	}
	return pairs
}

// streamPair is a stream, seen from the side that writes and the one that reads.
type streamPair struct{ writing, reading transport.Stream }

// openBetween opens a stream. Either side may be the opener.
func openBetween(ctx context.Context, writing, reading transport.Mux, readerOpens bool) (*streamPair, error) {
	if !readerOpens {
		s, err := writing.OpenStream(ctx)
		return &streamPair{writing: s}, err // the reader accepts when there is something to read
	}
	opened, err := reading.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := opened.Write([]byte{'!'}); err != nil {
		return nil, fmt.Errorf("write the first byte: %w", err)
	}
	accepted, err := writing.AcceptStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	if _, err := io.ReadFull(accepted, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("read the first byte: %w", err)
	}
	return &streamPair{accepted, opened}, nil
}

// accept completes a pair whose writer has opened it.
func (s *streamPair) accept(ctx context.Context, reading transport.Mux) (err error) {
	if s.reading == nil {
		s.reading, err = reading.AcceptStream(ctx)
	}
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return s.reading.SetDeadline(time.Now().Add(patience))
}

// closeRound has a reader, that is early or late, read all of a stream.
func closeRound(ctx context.Context, c carrier, p *pair, round, side int) error {
	writing, reading := p.sides(side)
	s, err := openBetween(ctx, writing, reading, round%2 == 1)
	if err != nil {
		return err
	}
	defer s.writing.Close()
	size := rand.Int64N(int64(c.window / 2))
	late := round%4 < 2
	if round%50 == 0 {
		size, late = 1<<20+size, false // more than a window needs a reader
	}
	wrote := make(chan error, 1)
	go func() {
		w := &writer{Writer: s.writing, content: content(round)}
		if err := w.write(size, anyPiece()); err != nil {
			wrote <- err
			return
		}
		if round%8 < 4 {
			wrote <- s.writing.Close()
		} else {
			wrote <- s.writing.CloseWrite()
		}
	}()
	if late {
		if err := <-wrote; err != nil {
			return err
		}
		wrote <- nil
	}
	if err := s.accept(ctx, reading); err != nil {
		return err
	}
	defer s.reading.Close()
	r := &reader{Reader: s.reading, content: content(round)}
	if err := r.toEnd(); err != nil {
		return fmt.Errorf("read after %d of %d bytes: %w", r.offset, size, err)
	}
	if r.offset != size {
		return fmt.Errorf("a clean end after %d of %d bytes", r.offset, size)
	}
	return <-wrote
}

// resetRound has a reader find the reset behind a part of the content.
func resetRound(ctx context.Context, c carrier, p *pair, round, side int) error {
	writing, reading := p.sides(side)
	s, err := openBetween(ctx, writing, reading, round%2 == 1)
	if err != nil {
		return err
	}
	defer s.writing.Close()
	size := 1 + rand.Int64N(int64(c.window/2))
	code := transport.Code(1 + rand.IntN(100))
	w := &writer{Writer: s.writing, content: content(round)}
	if err := w.write(size, anyPiece()); err != nil {
		return err
	}
	r := &reader{content: content(round)}
	if round%4 < 2 { // all of it was read
		if err := s.accept(ctx, reading); err != nil {
			return err
		}
		r.Reader = s.reading
		if err := r.until(size); err != nil {
			return fmt.Errorf("read before the reset: %w", err)
		}
	}
	if round%8 >= 4 { // an end that does not come after its data is none
		if err := s.writing.CloseWrite(); err != nil {
			return err
		}
		if round%4 < 2 {
			if err := r.toEnd(); err != nil {
				return fmt.Errorf("the end before the reset: %w", err)
			}
			return s.writing.Reset(code)
		}
	}
	if err := s.writing.Reset(code); err != nil {
		return err
	}
	if err := s.accept(ctx, reading); err != nil {
		return err
	}
	defer s.reading.Close()
	r.Reader = s.reading
	err = r.toEnd()
	if err == nil && round%8 >= 4 && r.offset == size {
		return nil // the end was faster than the reset
	}
	want := transport.StreamError{Code: code, Remote: true}
	if reset, ok := errors.AsType[*transport.StreamError](err); !ok || *reset != want {
		return fmt.Errorf("read after %d of %d bytes: %w, want %w", r.offset, size, orNone(err), &want)
	}
	return nil
}

var errNone = errors.New("a clean end")

// orNone names the absence of an error.
func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}
