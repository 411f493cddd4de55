package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
)

func TestPostgresCancel(t *testing.T) {
	overEachCarrier(t, pgtest.Start(t), func(t *testing.T, s *system) {
		t.Run("ending the context of a query cancels it at the server, and the connection lives on", func(t *testing.T) {
			holder := s.connect(t, nil)
			_, err := holder.Exec(t.Context(), "select pg_advisory_lock(1)")
			require.NoError(t, err)
			// The driver cancels by a second connection to the address at which the
			// first one is.
			waiter := s.connect(t, func(c *pgconn.Config) {
				c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
					return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Minute}
				}
			})
			before := s.gateway.Stats().Opened

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := waiter.Exec(ctx, "select pg_advisory_lock(1)")
				ended <- err
			}()
			waitForWaiter(t, s)
			cancel()

			var answer *pgconn.PgError
			require.ErrorAs(t, <-ended, &answer)
			assert.Equal(t, "57014", answer.Code, "query_canceled")
			assert.Equal(t, before+2, s.gateway.Stats().Opened, "streams for waitForWaiter and for the cancel request")
			require.NoError(t, waiter.Ping(t.Context()))
		})
	})
}

// waitForWaiter returns when a connection waits for an advisory lock.
func waitForWaiter(t *testing.T, s *system) {
	t.Helper()
	_, err := s.connect(t, nil).Exec(t.Context(), `
		do $$ begin
			while not exists (select from pg_locks where locktype = 'advisory' and not granted) loop
				perform pg_sleep(0.01);
			end loop;
		end $$`)
	require.NoError(t, err)
}
