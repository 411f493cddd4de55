package websocket_test

import (
	"net/http"
	"testing"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport/websocket"
)

// Any two sides speak the native multiplexer if both have it, smux if not, and are
// told what to do if they have none in common.
func TestTheMultiplexerIsTheBestThatBothSidesHave(t *testing.T) {
	ca := testca.New(t)
	const both, native, smux = websocket.AnyMultiplexer, websocket.Native, websocket.Smux
	for _, c := range []struct {
		agent, gateway websocket.Multiplexer
		want           string // the subprotocol; or empty
	}{
		{both, both, websocket.NativeSubprotocol},
		{both, native, websocket.NativeSubprotocol},
		{native, both, websocket.NativeSubprotocol},
		{native, native, websocket.NativeSubprotocol},
		{both, smux, websocket.Subprotocol},
		{smux, both, websocket.Subprotocol},
		{smux, smux, websocket.Subprotocol},
		{native, smux, ""},
		{smux, native, ""},
	} {
		l := listen(t, ca.Gateway(), websocket.Config{Multiplexer: c.gateway})
		d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: websocket.Config{Multiplexer: c.agent}}
		if c.want == "" {
			_, err := d.Dial(soon(t), urlOf(l.Addr()))
			var refused *websocket.HandshakeError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, http.StatusBadRequest, refused.Status)
			require.ErrorContains(t, err, "subprotocol")
			continue
		}
		agent, gateway := connect(t, l, d)
		carries(t, agent, gateway)

		// What the Listener chose is in its answer to the same offer.
		offer := map[websocket.Multiplexer][]string{
			both:   {websocket.Subprotocol, websocket.NativeSubprotocol}, // in no helpful order
			native: {websocket.NativeSubprotocol},
			smux:   {websocket.Subprotocol},
		}
		conn, _, err := ws.Dial(soon(t), urlOf(l.Addr())+websocket.Path, &ws.DialOptions{
			HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: ca.Agent("agent-1"), MaxIdleConnsPerHost: -1}},
			Subprotocols: offer[c.agent],
		})
		require.NoError(t, err)
		require.Equal(t, c.want, conn.Subprotocol())
		require.NoError(t, conn.CloseNow())
	}
}

func TestABudgetIsSharedByConnectionsOverBothMultiplexers(t *testing.T) {
	t.Parallel()
	ca := testca.New(t)
	// Enough for the first window of one stream over Native and no more.
	cfg := websocket.Config{Budget: websocket.NewBudget(240 << 10)}
	for _, c := range []struct {
		over websocket.Multiplexer
		want int
	}{{websocket.Native, 256 << 10}, {websocket.Native, 16 << 10}, {websocket.Smux, 256 << 10}} {
		cfg.Multiplexer = c.over
		agent, gateway := connect(t, listen(t, ca.Gateway(), cfg), &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})
		opened, _ := open(t, agent, gateway)
		taken := stuff(t, opened)
		require.LessOrEqual(t, taken, c.want)
		require.Greater(t, taken, c.want*9/10) // smux counts its frames
	}
}
