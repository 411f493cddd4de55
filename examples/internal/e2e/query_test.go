package e2e

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

func TestPostgresQuery(t *testing.T) {
	overEachCarrier(t, pgtest.Start(t), func(t *testing.T, s *system) {
		t.Run("TLS verifies in full through the tunnel", func(t *testing.T) {
			conn := s.connect(t, nil)
			var ssl bool
			var answer int
			require.NoError(t, conn.QueryRow(t.Context(),
				"select ssl, 6 * 7 from pg_stat_ssl where pid = pg_backend_pid()").Scan(&ssl, &answer))
			assert.True(t, ssl)
			assert.Equal(t, 42, answer)
		})

		t.Run("a certificate for another name is refused", func(t *testing.T) {
			config, err := pgx.ParseConfig(s.dsn())
			require.NoError(t, err)
			s.throughTunnel(&config.Config)
			config.TLSConfig.ServerName = "elsewhere.test"
			_, err = pgx.ConnectConfig(t.Context(), config)
			assert.ErrorContains(t, err, "certificate is valid for")
		})

		t.Run("the connection's remote address is the database", func(t *testing.T) {
			conn := s.connect(t, nil)
			assert.Equal(t, s.pg.Addr(), conn.PgConn().Conn().RemoteAddr().String())
		})

		t.Run("what the policy does not allow is denied and the session goes on", func(t *testing.T) {
			config, err := pgconn.ParseConfig(s.dsn())
			require.NoError(t, err)
			s.throughTunnel(config)
			config.Port++
			_, err = pgconn.ConnectConfig(t.Context(), config)
			require.ErrorIs(t, err, transport.Denied)
			var refused *tunnel.OpenError
			require.ErrorAs(t, err, &refused)
			assert.True(t, refused.Remote, "the agent decides, not the gateway")
			require.NoError(t, s.connect(t, nil).Ping(t.Context()))
		})

		t.Run("a name that the agent's network does not know is said to be one", func(t *testing.T) {
			_, err := s.gateway.Dialer(agentName, "e2e")(t.Context(), "tcp", "elsewhere.test:"+portOf(s))
			assert.ErrorIs(t, err, transport.NameNotFound)
		})
	})
}
