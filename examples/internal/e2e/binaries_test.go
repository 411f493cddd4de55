package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
	"github.com/outgate/outgate/examples/internal/process"
)

// binaries are the reference programs.
type binaries struct {
	gateway, agent string
	tempDir        func() string // with a path short enough for unix sockets
}

func TestBinaries(t *testing.T) {
	b := &binaries{
		gateway: process.Build(t, "../../gateway"),
		agent:   process.Build(t, "../../agent"),
		tempDir: t.TempDir,
	}
	pg := pgtest.Start(t)
	for _, transport := range []string{"websocket", "quic"} {
		t.Run("psql reaches a private database by "+transport+", also after restarts", func(t *testing.T) {
			b.testForward(t, pg, transport)
		})
	}
	t.Run("what an agent's policy does not allow is refused, and said so", b.testDenied)
	t.Run("a policy that changes counts at once, for open connections too", b.testTightened)
	t.Run("the printed instructions work as they are", b.testInstructions)
	t.Run("an agent that cannot enrol says why in one line", b.testEnrolment)
	t.Run("a revoked agent is cut off and gives up", b.testRevoked)
	t.Run("a command without a gateway says how to start one", b.testNoGateway)
	t.Run("a second gateway is kept out of the state directory", b.testLocked)
}

// node is a running gateway.
type node struct {
	*binaries
	*process.Process
	state, listen string
	url, pin      string
}

// serve runs a gateway on a state directory.
func (b *binaries) serve(t *testing.T, state, listen string) *node {
	t.Helper()
	n := &node{binaries: b, state: state, listen: listen}
	n.Process = process.Start(t, exec.CommandContext(t.Context(), b.gateway,
		"serve", "--state", state, "--listen", listen, "--names", "127.0.0.1,localhost", "--quic"))
	n.url = strings.TrimSpace(n.WaitFor("url ", 1))
	n.pin = strings.TrimSpace(n.WaitFor("pin ", 1))
	return n
}

// ask runs one of the gateway's other commands and returns what it prints.
func (n *node) ask(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), n.gateway, append(args, "--state", n.state)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// forward forwards a free local port and returns its address.
func (n *node) forward(t *testing.T, agent, target string) (*process.Process, string) {
	t.Helper()
	p := process.Start(t, exec.CommandContext(t.Context(), n.gateway, "forward", "0", agent, target, "--state", n.state))
	address, _, _ := strings.Cut(p.WaitFor("forwarding ", 1), " ")
	return p, address
}

// run runs an agent with a configuration in dir.
func (b *binaries) run(t *testing.T, dir, config, input string) *process.Process {
	t.Helper()
	path := filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	cmd := exec.CommandContext(t.Context(), b.agent, "run", "--config", path)
	cmd.Stdin = strings.NewReader(input)
	return process.Start(t, cmd)
}

func (n *node) config(agent, transport, allowed string) string {
	return fmt.Sprintf(`gateways: [%q]
transport: %s
pins: [%q]
name: %s
token_file: token
state_dir: state
policy:
  enable_access_restrictions: true
  allowed_endpoints:
  - {endpoint: %q, allow_special: true}
`, n.url, transport, n.pin, agent, allowed)
}

// grant writes a token for an agent to the file token in dir.
func (n *node) grant(t *testing.T, agent, dir string) {
	t.Helper()
	token := n.ask(t, "token", "create", "--quiet", "--agent", agent)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
}

// waitForAgent waits until the gateway has admitted an agent that many times.
func (n *node) waitForAgent(name string, times int) {
	n.WaitFor(`msg="agent connected" agent=`+name+" ", times)
}

func (b *binaries) testForward(t *testing.T, pg *pgtest.Server, transport string) {
	state, dir, dir2 := filepath.Join(b.tempDir(), "state"), b.tempDir(), b.tempDir()
	n := b.serve(t, state, freeAddress(t))
	n.grant(t, "db-1", dir)
	n.grant(t, "db-2", dir2)
	config := n.config("db-1", transport, pg.Addr())
	agent := b.run(t, dir, config, "")
	n.waitForAgent("db-1", 1)
	forward, local := n.forward(t, "db-1", pg.Addr())
	assert.Equal(t, "42\n", psql(t, pg, local, "select 6 * 7"))
	assert.Equal(t, n.pin+"\n", n.ask(t, "pin"))
	assert.Equal(t, map[string]string{"db-1": "active"}, n.agents(t))

	// Another process of the gateway knows what the first one granted and issued.
	n.Signal(syscall.SIGTERM)
	assert.Equal(t, 0, n.Wait())
	assert.Equal(t, 1, forward.Wait(), "a forward ends with its gateway")
	assert.Contains(t, forward.Output(), "the gateway has stopped")
	n = b.serve(t, state, n.listen)
	n.waitForAgent("db-1", 1)
	agent2 := b.run(t, dir2, n.config("db-2", transport, pg.Addr()), "")
	n.waitForAgent("db-2", 1)
	assert.Equal(t, map[string]string{"db-1": "active", "db-2": "active"}, n.agents(t))

	// Another process of the agent needs no token.
	agent.Signal(syscall.SIGTERM)
	assert.Equal(t, 0, agent.Wait())
	require.NoError(t, os.Remove(filepath.Join(dir, "token")))
	agent = b.run(t, dir, config, "")
	n.waitForAgent("db-1", 2)
	forward, local = n.forward(t, "db-1", pg.Addr())
	assert.Equal(t, "42\n", psql(t, pg, local, "select 6 * 7"))

	forward.Signal(os.Interrupt)
	assert.Equal(t, 0, forward.Wait())
	for _, p := range []*process.Process{agent, agent2, n.Process} {
		p.Signal(syscall.SIGTERM)
		assert.Equal(t, 0, p.Wait())
	}
	n = b.serve(t, state, n.listen)
	assert.Equal(t, map[string]string{"db-1": "disconnected", "db-2": "disconnected"}, n.agents(t))
}

func (b *binaries) testDenied(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dir := b.tempDir()
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	n.grant(t, "web-1", dir)
	b.run(t, dir, n.config("web-1", "websocket", "127.0.0.1:1"), "")
	n.waitForAgent("web-1", 1)

	forward, local := n.forward(t, "web-1", ln.Addr().String())
	conn, err := net.Dial("tcp", local)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	assert.ErrorIs(t, err, syscall.ECONNRESET, "not a clean end")
	assert.Contains(t, forward.WaitFor("connection failed:", 1), "denied by policy")
}

func (b *binaries) testTightened(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dir := b.tempDir()
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	n.grant(t, "web-2", dir)
	agent := b.run(t, dir, n.config("web-2", "websocket", ln.Addr().String()), "")
	n.waitForAgent("web-2", 1)
	_, local := n.forward(t, "web-2", ln.Addr().String())
	conn, err := net.Dial("tcp", local)
	require.NoError(t, err)
	defer conn.Close()
	target, err := ln.Accept()
	require.NoError(t, err)
	defer target.Close()
	_, err = target.Write([]byte("open"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 4))
	require.NoError(t, err)

	path := filepath.Join(dir, "agent.yaml")
	require.NoError(t, os.WriteFile(path, []byte("no mapping"), 0o600))
	agent.WaitFor("level=ERROR", 1) // and the one before stays
	_, err = target.Write([]byte("open"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 4))
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(path, []byte(n.config("web-2", "websocket", "127.0.0.1:1")), 0o600))
	_, err = conn.Read(make([]byte, 1))
	assert.ErrorIs(t, err, syscall.ECONNRESET, "not a clean end")
}

func (b *binaries) testInstructions(t *testing.T) {
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	text := n.ask(t, "token", "create", "--agent", "db-1", "--ttl", "1h")
	assert.Contains(t, text, "for agent db-1 only, for 1h0m0s:")
	blocks := strings.Split(text, "\n\n") // words, token, words, configuration, words, command
	require.Len(t, blocks, 6)
	token := strings.TrimSpace(blocks[1])
	config := strings.ReplaceAll(blocks[3]+"\n", "\n  ", "\n")[2:]
	b.run(t, b.tempDir(), config, token+"\n")
	n.waitForAgent("db-1", 1)
	assert.NotContains(t, n.Output(), token)
}

func (b *binaries) testEnrolment(t *testing.T) {
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	good := n.config("db-1", "websocket", "127.0.0.1:1")
	token := n.ask(t, "token", "create", "--quiet", "--agent", "db-1")
	wrong := "0000000000000000." + strings.Split(strings.TrimSpace(token), ".")[1]
	for _, test := range []struct {
		name, token, config, want string
	}{
		{"unknown token", wrong, good, `registration refused; the gateway's log says why; get a new one with "gateway token create"`},
		{"damaged token", token[:30], good, "was it cut while copying?"},
		{"another agent's token", token, strings.Replace(good, "name: db-1", "name: db-2", 1), "registration refused"},
		{"spent token", token, good, "registration refused"}, // burned by the case before
		{"wrong pin", token, strings.Replace(good, n.pin, "sha256:"+strings.Repeat("ab", 32), 1), "SPKI pin mismatch: server presented"},
		{"unknown key", token, good + "polcy: {}\n", `agent.yaml: line 11: unknown key "polcy"; the keys are`},
		{"unknown key in the policy", token, strings.Replace(good, "enable_access", "enabled_access", 1), `policy: line 8: unknown key "enabled_access_restrictions"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := b.tempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte(test.token), 0o600))
			p := b.run(t, dir, test.config, "")
			assert.Equal(t, 1, p.Wait())
			assert.Contains(t, p.Output(), test.want)
			assert.Equal(t, 1, strings.Count(p.Output(), "\n"), "one line: %s", p.Output())
			assert.NotContains(t, p.Output(), strings.Split(test.token, ".")[1])
		})
	}
}

func (b *binaries) testRevoked(t *testing.T) {
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	dir := b.tempDir()
	n.grant(t, "db-1", dir)
	assert.Regexp(t, `db-1 +open `, n.ask(t, "token", "list"))
	agent := b.run(t, dir, n.config("db-1", "websocket", "127.0.0.1:1"), "")
	n.waitForAgent("db-1", 1)
	assert.Regexp(t, `db-1 +redeemed `, n.ask(t, "token", "list"))
	assert.Contains(t, n.ask(t, "agents", "revoke", "db-1", "--reason", "sold"), "certificates that were good until now: 1")
	assert.Equal(t, 1, agent.Wait())
	assert.Contains(t, agent.Output(), "revoked")
	assert.Regexp(t, `db-1 +revoked `, n.ask(t, "agents"))

	token := strings.TrimSpace(n.ask(t, "token", "create", "--quiet"))
	id, _, _ := strings.Cut(token, ".")
	assert.Contains(t, n.ask(t, "token", "revoke", id), id+" revoked")
	assert.Regexp(t, id+` +- +void `, n.ask(t, "token", "list"))
}

func (b *binaries) testNoGateway(t *testing.T) {
	p := process.Start(t, exec.CommandContext(t.Context(), b.gateway, "agents", "--state", b.tempDir()))
	assert.Equal(t, 1, p.Wait())
	assert.Contains(t, p.Output(), `start one with "gateway serve"`)
}

func (b *binaries) testLocked(t *testing.T) {
	n := b.serve(t, filepath.Join(b.tempDir(), "state"), "127.0.0.1:0")
	p := process.Start(t, exec.CommandContext(t.Context(), b.gateway, "serve", "--state", n.state, "--listen", "127.0.0.1:0"))
	assert.Equal(t, 1, p.Wait())
	assert.Contains(t, p.Output(), "in use by another process")
	assert.Equal(t, n.pin+"\n", n.ask(t, "pin"), "the first one is not disturbed")
}

// agents are the states of the agents by their names.
func (n *node) agents(t *testing.T) map[string]string {
	t.Helper()
	var list []struct{ Name, Status string }
	require.NoError(t, json.Unmarshal([]byte(n.ask(t, "agents", "--json")), &list))
	states := map[string]string{}
	for _, a := range list {
		states[a.Name] = a.Status
	}
	return states
}

// psql asks the database at an address of this machine with PostgreSQL's own
// client.
func psql(t *testing.T, pg *pgtest.Server, address, query string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), pg.Program("psql"), pg.DSNAt(address), "-XAtc", query).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// freeAddress is an address that nothing listens on, for a gateway that comes
// back at the same one. Its port is below those that the system gives to clients.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 20 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(10000)))
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		require.NoError(t, tcp.Close())
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		require.NoError(t, udp.Close())
		return address
	}
	t.Fatal("no free port")
	return ""
}
