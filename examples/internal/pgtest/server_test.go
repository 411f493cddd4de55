//go:build unix

package pgtest_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/examples/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	pg := pgtest.Start(t)

	t.Run("takes TLS connections whose server verifies", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), pg.DSN())
		require.NoError(t, err)
		defer conn.Close(t.Context())
		var ssl bool
		var user string
		err = conn.QueryRow(t.Context(), "select ssl, current_user from pg_stat_ssl where pid = pg_backend_pid()").Scan(&ssl, &user)
		require.NoError(t, err)
		assert.True(t, ssl)
		assert.Equal(t, pg.User, user)
	})

	t.Run("refuses TCP without TLS", func(t *testing.T) {
		_, err := pgx.Connect(t.Context(), strings.Replace(pg.DSN(), "verify-full", "disable", 1))
		assert.ErrorContains(t, err, "no pg_hba.conf entry")
	})

	t.Run("refuses a wrong password, on the unix socket too", func(t *testing.T) {
		for _, hostport := range []string{pg.Addr(), pg.Socket()} {
			config, err := pgx.ParseConfig(pg.DSN())
			require.NoError(t, err)
			if hostport == pg.Socket() {
				config.Host, config.TLSConfig = pg.SocketDir, nil
			}
			config.Password = "wrong"
			_, err = pgx.ConnectConfig(t.Context(), config)
			assert.ErrorContains(t, err, "password authentication failed")
		}
	})

	t.Run("comes with its programs", func(t *testing.T) {
		out, err := exec.CommandContext(t.Context(), pg.Program("psql"), pg.DSN(), "-Atc", "select 1").CombinedOutput()
		require.NoError(t, err, "%s", out)
		assert.Equal(t, "1\n", string(out))
	})
}

func TestServersDoNotMeet(t *testing.T) {
	one, two := pgtest.Start(t), pgtest.Start(t)
	assert.NotEqual(t, one.Addr(), two.Addr())
	assert.NotEqual(t, one.Password, two.Password)
}
