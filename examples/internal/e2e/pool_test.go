package e2e

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
	"github.com/outgate/outgate/transport"
)

const poolSize = 20

// pool is a connection pool whose every connection goes through the tunnel and is
// looked at before it is used.
func (s *system) pool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(s.dsn())
	require.NoError(t, err)
	config.MaxConns = poolSize
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	s.throughTunnel(&config.ConnConfig.Config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// atOnce runs query on poolSize connections at the same time and returns the
// server processes that answered.
func atOnce(t *testing.T, pool *pgxpool.Pool) map[int]bool {
	t.Helper()
	type answer struct {
		pid, size int
		err       error
	}
	answers := make(chan answer, poolSize)
	var together sync.WaitGroup // nobody gives its connection back before all have one
	together.Add(poolSize)
	for range poolSize {
		go func() {
			var a answer
			conn, err := pool.Acquire(t.Context())
			together.Done()
			if err != nil {
				answers <- answer{err: err}
				return
			}
			defer conn.Release()
			together.Wait()
			for range 10 {
				var text string
				a.err = conn.QueryRow(t.Context(), "select pg_backend_pid(), repeat('x', 100000)").Scan(&a.pid, &text)
				if a.err != nil {
					break
				}
				a.size += len(text)
			}
			answers <- a
		}()
	}
	pids := map[int]bool{}
	for range poolSize {
		a := <-answers
		require.NoError(t, a.err)
		assert.Equal(t, 10*100000, a.size)
		pids[a.pid] = true
	}
	return pids
}

func TestPostgresPool(t *testing.T) {
	overEachCarrier(t, pgtest.Start(t), func(t *testing.T, s *system) {
		t.Run("20 connections work at the same time", func(t *testing.T) {
			assert.Len(t, atOnce(t, s.pool(t)), poolSize)
		})

		t.Run("a pool outlives the agent's connection", func(t *testing.T) {
			pool := s.pool(t)
			before := atOnce(t, pool)
			s.cut(t)
			after := atOnce(t, pool)
			assert.Len(t, after, poolSize)
			for pid := range before {
				assert.NotContains(t, after, pid)
			}
		})

		t.Run("a query that is running when the tunnel breaks fails with the reason", func(t *testing.T) {
			holder := s.connect(t, nil)
			_, err := holder.Exec(t.Context(), "select pg_advisory_lock(2)")
			require.NoError(t, err)
			waiter := s.connect(t, nil)
			ended := make(chan error, 1)
			go func() {
				// Not Exec, which forgets why when the break comes after the first
				// message of the answer.
				ended <- waiter.PgConn().ExecParams(t.Context(), "select pg_advisory_lock(2)", nil, nil, nil, nil).Read().Err
			}()
			waitForWaiter(t, s)
			s.cut(t)
			err = <-ended
			var closed *transport.CloseError
			assert.ErrorAs(t, err, &closed)
			assert.False(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "a break must not look like an end: %v", err)
		})
	})
}

// cut breaks the agent's connection and returns when it is back.
func (s *system) cut(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	old, err := s.gateway.Session(agentName)
	require.NoError(t, err)
	require.NoError(t, old.Close())
	select {
	case <-old.Context().Done():
	case <-ctx.Done():
		t.Fatal("the session did not end")
	}
	_, err = s.gateway.WaitSession(ctx, agentName)
	require.NoError(t, err)
}
