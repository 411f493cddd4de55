package pki_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

const (
	goodID     = "0123456789abcdef"
	goodSecret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
)

func TestParseToken(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"as it is revealed":                 {goodID + "." + goodSecret, true},
		"with the newline of a file":        {goodID + "." + goodSecret + "\n", true},
		"empty":                             {"", false},
		"no dot":                            {goodID + goodSecret, false},
		"no id":                             {"." + goodSecret, false},
		"no secret":                         {goodID + ".", false},
		"upper-case id":                     {strings.ToUpper(goodID) + "." + goodSecret, false},
		"id that is not hex":                {"0123456789abcdeg." + goodSecret, false},
		"short id":                          {goodID[1:] + "." + goodSecret, false},
		"cut secret":                        {goodID + "." + goodSecret[1:], false},
		"long secret":                       {goodID + "." + goodSecret + "A", false},
		"padded secret":                     {goodID + "." + goodSecret + "=", false},
		"standard alphabet":                 {goodID + ".+" + goodSecret[1:], false},
		"another spelling of the last bits": {goodID + "." + goodSecret[:42] + "9", false},
		"newline inside":                    {goodID + "." + goodSecret[:42] + "\n" + "A", false},
		"second dot":                        {goodID + "." + goodSecret[:42] + ".", false},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := pki.ParseToken(c.in)
			if !c.ok {
				require.Error(t, err)
				require.True(t, token.IsZero())
				require.NotContains(t, err.Error(), "AAECAwQF")
				return
			}
			require.NoError(t, err)
			require.Equal(t, goodID, token.ID())
			require.Equal(t, goodID+"."+goodSecret, token.Reveal())
		})
	}
}

func TestTokenHidesItsSecret(t *testing.T) {
	token, err := pki.ParseToken(goodID + "." + goodSecret)
	require.NoError(t, err)
	type private struct{ token pki.Token }
	type public struct{ Token pki.Token }
	values := []any{
		token, &token,
		private{token},
		&private{token},
		public{token},
		[]pki.Token{token},
		map[string]pki.Token{"a": token},
		map[pki.Token]string{token: "a"},
		pki.Registration{Token: token},
		fmt.Errorf("with %v", token),
		[1]any{token},
	}
	var log strings.Builder
	text, inJSON := slog.New(slog.NewTextHandler(&log, nil)), slog.New(slog.NewJSONHandler(&log, nil))
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		text.Info("x", "v", v)
		inJSON.Info("x", "v", v)
	}
	encoded, err := json.Marshal(public{token})
	require.NoError(t, err)
	log.Write(encoded)

	require.NotContains(t, log.String(), goodSecret)
	require.NotContains(t, log.String(), fmt.Sprintf("%x", goodSecret))
	require.NotContains(t, log.String(), fmt.Sprintf("%X", goodSecret))
	require.Contains(t, log.String(), goodID+".[redacted]")
}

func TestTokenIsReadFromConfiguration(t *testing.T) {
	var config struct{ Token pki.Token }
	require.NoError(t, json.Unmarshal([]byte(`{"Token":"`+goodID+"."+goodSecret+`"}`), &config))
	require.Equal(t, goodID+"."+goodSecret, config.Token.Reveal())
	require.Error(t, json.Unmarshal([]byte(`{"Token":"`+goodID+`.[redacted]"}`), &config))
}

func TestZeroTokenIsNone(t *testing.T) {
	var token pki.Token
	require.True(t, token.IsZero())
	require.Empty(t, token.Reveal())
	require.Equal(t, "[no token]", token.String())
}

func FuzzParseToken(f *testing.F) {
	f.Add(goodID + "." + goodSecret)
	f.Add("." + goodSecret)
	f.Add(goodID + ".")
	f.Add(" \t" + goodID + "." + goodSecret + "\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := pki.ParseToken(s)
		if err != nil {
			if !token.IsZero() {
				t.Error("a token beside an error")
			}
			return
		}
		if token.Reveal() != strings.TrimSpace(s) {
			t.Errorf("%q is read as another token", s)
		}
		again, err := pki.ParseToken(token.Reveal())
		if err != nil || again.Reveal() != token.Reveal() {
			t.Errorf("what Reveal wrote is not read back: %v", err)
		}
		if _, secret, _ := strings.Cut(token.Reveal(), "."); strings.Contains(fmt.Sprintf("%v %+v %#v", token, token, token), secret) {
			t.Error("secret shown")
		}
	})
}
