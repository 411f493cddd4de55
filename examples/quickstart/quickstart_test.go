package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
	"github.com/outgate/outgate/examples/internal/process"
)

func TestQuickstart(t *testing.T) {
	program := process.Build(t, ".")

	t.Run("tells the whole story in order and exits 0", func(t *testing.T) {
		pg := pgtest.Start(t)
		p := process.Start(t, exec.CommandContext(t.Context(), program, "-postgres", pg.DSN()))
		require.Equal(t, 0, p.Wait())

		assert.Equal(t, []string{
			"gateway", "private", "policy", "token", "enrolled",
			"connected by WebSocket", "fetched", "denied",
			"connected by QUIC", "fetched", "cut", "reconnected", "fetched", "queried",
			"done",
		}, steps(t, p.Output()))
		assert.Contains(t, p.Output(), `200 OK, "hello from the private network"`)
		assert.Contains(t, p.Output(), "queried      PostgreSQL ")
		assert.NotContains(t, p.Output(), pg.Password)
		assert.Regexp(t, `token +[0-9a-f]+\.\[redacted\]`, p.Output())
	})

	t.Run("exits 1 and says which step failed", func(t *testing.T) {
		pg := pgtest.Start(t)
		dsn := strings.Replace(pg.DSN(), pg.Password, "wrong", 1)
		p := process.Start(t, exec.CommandContext(t.Context(), program, "-postgres", dsn))
		assert.Equal(t, 1, p.Wait())
		assert.Contains(t, p.Output(), "quickstart failed: by QUIC: connect to PostgreSQL: ")
		assert.Contains(t, p.Output(), "password authentication failed")
		assert.NotContains(t, p.Output(), "all of it held")
	})

	t.Run("exits 1 for a database that it cannot reach by TCP", func(t *testing.T) {
		p := process.Start(t, exec.CommandContext(t.Context(), program, "-postgres", "host=/run/postgresql"))
		assert.Equal(t, 1, p.Wait())
		assert.Contains(t, p.Output(), "not a unix socket")
	})
}

// steps are the words that begin the lines, with the carrier for "connected".
func steps(t *testing.T, output string) (steps []string) {
	for line := range strings.Lines(output) {
		require.Regexp(t, `^ +\d+\.\d{3}s  `, line)
		_, line, _ = strings.Cut(line, "s  ")
		what := strings.TrimSpace(line[:11])
		if what == "connected" {
			what += " " + strings.TrimSpace(line[11:])
		}
		if what != "" {
			steps = append(steps, what)
		}
	}
	return steps
}
