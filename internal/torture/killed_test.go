package torture

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
)

func TestAProcessThatWasKilledIsNeverACleanEnd(t *testing.T) {
	t.Parallel() // it waits for silence most of the time
	onEachCarrier(t, func(t *testing.T, c carrier) {
		t.Parallel()
		ca := testca.New(t)
		ids := identities{agent: ca.Agent("agent-1"), gateway: ca.Gateway()}
		agent, err := credentialsOf(ids.agent, ca.Pool())
		require.NoError(t, err)
		gateway, err := credentialsOf(ids.gateway, ca.Pool())
		require.NoError(t, err)
		busy := make(chan struct{}, 4) // processes at a time; the rest waits for silence
		inParallel(t, scaled(t, 1000, 100, "rounds"), 250, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			o := order{Role: "source", Carrier: c.name, Seed: content(i), Size: sizeOf(c, i)}
			busy <- struct{}{}
			v, err := newVictim(ctx, c, ids, o, agent, gateway, i%2 == 0)
			if err != nil {
				<-busy
				return err
			}
			defer v.close()
			return receive(ctx, v.mux, o.Seed, o.Size, true, func() error {
				defer func() { <-busy }()
				return v.child.kill()
			})
		})
	})
}

// victim is a child and this side of its connection.
type victim struct {
	child    *child
	mux      transport.Mux
	listener transport.Listener // if the child has dialled
}

// newVictim starts a child that sends, as agent or as gateway.
func newVictim(ctx context.Context, c carrier, ids identities, o order, agent, gateway credentials, asAgent bool) (v *victim, err error) {
	v = &victim{}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	if asAgent {
		if v.listener, err = c.listen(ids.gateway); err != nil {
			return v, err
		}
		o.URL, o.Identities = urlOf(v.listener.Addr()), []credentials{agent}
		if v.child, err = start(ctx, o); err != nil {
			return v, err
		}
		v.mux, err = v.listener.Accept(ctx)
		return v, err
	}
	o.Identities = []credentials{gateway}
	if v.child, err = start(ctx, o); err != nil {
		return v, err
	}
	r, err := v.child.answer()
	if err != nil {
		return v, err
	}
	v.mux, err = c.dialer(ids.agent).Dial(ctx, "https://"+r.Addr)
	return v, err
}

func (v *victim) close() {
	if v.child != nil {
		_ = v.child.kill() // it may be dead
		_ = v.child.wait()
	}
	if v.mux != nil {
		_ = v.mux.CloseWithError(transport.NoError, "")
	}
	if v.listener != nil {
		_ = v.listener.Close()
	}
}

// sizeOf is how much a sender sends in a round: what arrives although nobody reads,
// or without end.
func sizeOf(c carrier, round int) int64 {
	if round%4 < 2 {
		return -1
	}
	return int64(1 + round*997%(c.window/2))
}

// send opens a stream with the content given and, unless that has no end, tells on a
// second one when it is under way. Neither is ended.
func send(ctx context.Context, m transport.Mux, seed content, size int64) error {
	s, err := m.OpenStream(ctx)
	if err != nil {
		return err
	}
	w := &writer{Writer: s, content: seed}
	if size < 0 {
		for {
			if err := w.write(1<<20, anyPiece()); err != nil {
				return err
			}
		}
	}
	if err := w.write(size, anyPiece()); err != nil {
		return err
	}
	told, err := m.OpenStream(ctx)
	if err != nil {
		return err
	}
	_, err = told.Write([]byte{'.'})
	return err
}

// receive takes what send sends on the other side, has end end the connection, and
// says what is wrong with what it then finds: first all that had arrived, unless
// this end need not keep it, then an error.
func receive(ctx context.Context, m transport.Mux, seed content, size int64, keeps bool, end func() error) error {
	accept := func() (transport.Stream, error) {
		s, err := m.AcceptStream(ctx)
		if err != nil {
			return nil, fmt.Errorf("accept: %w", err)
		}
		deadline, _ := ctx.Deadline()
		return s, s.SetDeadline(deadline)
	}
	prepare := func() (*reader, error) {
		s, err := accept()
		if err != nil {
			return nil, err
		}
		r := &reader{Reader: s, content: seed}
		if size < 0 {
			return r, r.until(int64(seed) * 4099 % (256 << 10))
		}
		told, err := accept()
		if err != nil {
			return nil, err
		}
		_, err = told.Read(make([]byte, 1))
		return r, err
	}
	r, err := prepare()
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	noticed := func() error {
		select {
		case <-m.Context().Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the end of the connection went unnoticed: %w", ctx.Err())
		}
	}
	if size >= 0 {
		if err := noticed(); err != nil {
			return err
		}
	}
	err = r.toEnd()
	if late := noticed(); late != nil {
		return errors.Join(err, late)
	}
	switch {
	case err == nil:
		return fmt.Errorf("a clean end after %d bytes", r.offset)
	case size >= 0 && keeps && r.offset != size:
		return fmt.Errorf("%d bytes had arrived, %d were read before: %w", size, r.offset, err)
	}
	return errors.Join(lost(err), lost(context.Cause(m.Context())))
}
