package websocket

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStrangersCannotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := quietLog(slog.New(slog.NewTextHandler(&b, nil)), 3)
		for range 100 {
			log.Warn("knock")
		}
		require.Equal(t, 3, strings.Count(b.String(), "knock"))
		require.NotContains(t, b.String(), "left_out")
		time.Sleep(11 * time.Second)
		log.Warn("knock")
		log.Warn("knock")
		require.Equal(t, 5, strings.Count(b.String(), "knock"))
		require.Equal(t, 1, strings.Count(b.String(), "left_out_before=97"))
	})
}
