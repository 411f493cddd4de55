package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

const whole = `# what the owner wrote
gateways:
- https://one.example.com:8443
- https://two.example.com
transport: quic
pins: ["sha256:abababababababababababababababababababababababababababababababab"]
name: db-1
token_file: "-"
state_dir: state
policy:
  enable_access_restrictions: true
  allowed_endpoints:
  # the database
  - db.internal:5432

log_level: debug
`

func TestConfigReadsAllItsKeys(t *testing.T) {
	c, err := parseConfig([]byte(whole))
	require.NoError(t, err)
	assert.Equal(t, []string{"https://one.example.com:8443", "https://two.example.com"}, c.Gateways)
	assert.Equal(t, "quic", c.Transport)
	assert.Len(t, c.Pins, 1)
	assert.Equal(t, "db-1", c.Name)
	assert.Equal(t, slog.LevelDebug, c.LogLevel)
	assert.Contains(t, c.rules.String(), "db.internal:5432")
}

func TestConfigDefaults(t *testing.T) {
	c, err := parseConfig([]byte("gateways: [https://gateway.example.com]\nstate_dir: state\n"))
	require.NoError(t, err)
	assert.Equal(t, "auto", c.Transport)
	assert.Equal(t, slog.LevelInfo, c.LogLevel)
	target, err := policy.ParseTarget("tcp", "db.internal:5432")
	require.NoError(t, err)
	require.Error(t, c.rules.Authorize(t.Context(), policy.Request{Target: target}), "no policy allows nothing")
}

func TestConfigErrorsNameTheLineOfTheFile(t *testing.T) {
	const base = "gateways: [https://gateway.example.com]\nstate_dir: state\n"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "it is empty"},
		{"a comment only", "# nothing\n", "it is empty"},
		{"not a mapping", "[]", "key: value"},
		{"flow style", "{gateways: [x], state_dir: y}", "key: value"},
		{"two documents", base + "---\n" + base, "more than one"},
		{"not YAML", base + "name: [", "line 3"},
		{"unknown key", base + "polcy: {}", `line 3: unknown key "polcy"`},
		{"repeated key", base + "state_dir: x", "line 3"},
		{"wrong type", base + "name: [x]", "line 3"},
		{"no gateway", "state_dir: state", "no gateways"},
		{"no state", "gateways: [https://gateway.example.com]", "no state_dir"},
		{"unknown transport", base + "transport: carrier-pigeon", "use auto, websocket or quic"},
		{"bad pin", base + "pins: [sha1:00]", "must begin with"},
		{"bad level", base + "log_level: loud", "unknown name"},
		{"pins and authority", base + "ca_file: ca.pem\npins: [\"sha256:" + strings.Repeat("ab", 32) + "\"]", "keep one"},
		{"empty policy", base + "policy:\n", "enable_access_restrictions"},
		{"policy error", base + "# here\npolicy:\n  enable_access_restrictions: true\n  allowed_endpoint: []\n", "line 6: unknown key"},
		{"policy error on the first line", base + "policy: {enable_access_restriction: true}\n", "line 3: unknown key"},
		{"key after the policy", base + "policy: {enable_access_restrictions: true}\nlog-level: debug\n", "line 4: unknown key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig([]byte(test.text))
			require.ErrorContains(t, err, test.want)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestConfigPathsAreRelativeToItsFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.yaml")
	text := "gateways: [https://gateway.example.com]\nstate_dir: state\ntoken_file: secrets/token\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	c, err := loadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(dir, "state"), c.StateDir)
	assert.Equal(t, filepath.Join(dir, "secrets", "token"), c.TokenFile)

	require.NoError(t, os.WriteFile(path, []byte(text+"ca_file: ca.pem\n"), 0o600))
	_, err = loadConfig(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("no PEM"), 0o600))
	_, err = loadConfig(path)
	require.ErrorContains(t, err, "holds no certificate")
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("policy:"))
	f.Add([]byte("gateways: [x]\nstate_dir: y\npolicy: {enable_access_restrictions: false}\r\nname: z"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig(text)
		if err == nil && (len(c.Gateways) == 0 || c.StateDir == "") {
			t.Fatal("accepted a configuration that cannot work")
		}
	})
}
