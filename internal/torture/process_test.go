package torture

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/outgate/outgate/transport"
)

// A test that needs a second process starts its own binary with an order in the
// environment. Both sides then speak JSON over the pipes of the process, which ends
// with its standard input: no child outlives its test.
const orderVariable = "OUTGATE_TORTURE_ORDER"

// order is what a child does.
type order struct {
	Role       string // source, gateway or agents
	Carrier    string
	URL        string        // of the gateway; empty at the gateway
	Identities []credentials // one for each agent, or the gateway's

	Opens int     // of a gateway: MaxOpensPerSecond
	Seed  content // of a source
	Size  int64   // of a source: bytes on its stream; negative is without end
}

// question is what a parent asks.
type question struct {
	Stall     int  // streams for each agent to open that nobody reads
	ResetPeak bool // the next report has the peak from now on
}

// report is what a child answers.
type report struct {
	Addr       string // of the gateway, in its first report
	RSS, Peak  int64  // bytes, of the process
	Goroutines int
	Moved      int64 // bytes that were written to streams that nobody reads
	Err        string
}

// obey runs in a child. It returns the exit code.
func obey(text string) int {
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = o.obey(json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func (o *order) obey(questions *json.Decoder, answers *json.Encoder) error {
	i := slices.IndexFunc(carriers, func(c carrier) bool { return c.name == o.Carrier })
	if i < 0 {
		return fmt.Errorf("no carrier %q", o.Carrier)
	}
	ids, err := identitiesOf(o.Identities)
	if err != nil {
		return err
	}
	switch o.Role {
	case "source":
		return beSource(carriers[i], ids, o, questions, answers)
	case "gateway":
		return beGateway(carriers[i], ids, o, questions, answers)
	case "agents":
		return beAgents(carriers[i], ids, o, questions, answers)
	}
	return fmt.Errorf("no role %q", o.Role)
}

// beSource sends, on one connection, what it was ordered to.
func beSource(c carrier, ids []identities, o *order, questions *json.Decoder, answers *json.Encoder) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var m transport.Mux
	var err error
	if o.URL != "" {
		m, err = c.dialer(ids[0].agent).Dial(ctx, o.URL)
	} else {
		var l transport.Listener
		if l, err = c.listen(ids[0].gateway); err != nil {
			return err
		}
		if err := answers.Encode(report{Addr: l.Addr().String()}); err != nil {
			return err
		}
		m, err = l.Accept(ctx)
	}
	if err != nil {
		return err
	}
	if err := send(ctx, m, o.Seed, o.Size); err != nil {
		return err
	}
	return questions.Decode(new(question)) // waits to be killed
}

// child is a process that obeys an order.
type child struct {
	cmd     *exec.Cmd
	in      io.Closer
	asks    *json.Encoder
	answers *json.Decoder
	once    sync.Once
	waited  error
}

// start starts a child, to be ended with stop or kill.
func start(ctx context.Context, o order) (*child, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 10 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, in: in, asks: json.NewEncoder(in), answers: json.NewDecoder(bufio.NewReader(out))}, nil
}

// answer reads the next report.
func (c *child) answer() (report, error) {
	var r report
	if err := c.answers.Decode(&r); err != nil {
		return r, fmt.Errorf("no report of the child: %w", err)
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

// ask puts a question and waits for the report.
func (c *child) ask(q question) (report, error) {
	if err := c.asks.Encode(q); err != nil {
		return report{}, err
	}
	return c.answer()
}

// kill ends the child as kill -9 does.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = c.wait() // it was killed
	return nil
}

func (c *child) wait() error {
	c.once.Do(func() { c.waited = c.cmd.Wait() })
	return c.waited
}

// credentials are one side's certificate, its key and whom it trusts, in DER.
type credentials struct{ Certificate, Key, Root []byte }

// credentialsOf takes them out of a configuration of a test's authority.
func credentialsOf(config *tls.Config, roots *x509.CertPool) (credentials, error) {
	cert := config.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return credentials{}, err
	}
	chains, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return credentials{}, err
	}
	chain := chains[0]
	return credentials{cert.Certificate[0], key, chain[len(chain)-1].Raw}, nil
}

// identitiesOf makes configurations for both sides of each, of which one is right.
func identitiesOf(all []credentials) ([]identities, error) {
	ids := make([]identities, 0, len(all))
	for _, c := range all {
		key, err := x509.ParsePKCS8PrivateKey(c.Key)
		if err != nil {
			return nil, err
		}
		root, err := x509.ParseCertificate(c.Root)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		pool.AddCert(root)
		certificates := []tls.Certificate{{Certificate: [][]byte{c.Certificate}, PrivateKey: key}}
		ids = append(ids, identities{
			agent:   &tls.Config{MinVersion: tls.VersionTLS13, Certificates: certificates, RootCAs: pool},
			gateway: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: certificates, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true},
		})
	}
	return ids, nil
}
