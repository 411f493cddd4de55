package quic_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// doomedVariable makes this test binary an agent that is going to be killed.
const doomedVariable = "OUTGATE_TEST_DOOMED_AGENT"

// doomed is what such an agent reads from its standard input.
type doomed struct {
	Gateway               string
	Certificate, Key, CAs []byte
	Connections, Streams  int
	Payload               []byte
}

// run connects, writes the payload on every stream, says so, and waits.
func (d doomed) run() error {
	key, err := x509.ParsePKCS8PrivateKey(d.Key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	ca, err := x509.ParseCertificate(d.CAs)
	if err != nil {
		return err
	}
	roots.AddCert(ca)
	dialer := &quic.Dialer{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{d.Certificate}, PrivateKey: key}},
		RootCAs:      roots,
	}}
	for range d.Connections {
		m, err := dialer.Dial(context.Background(), d.Gateway)
		if err != nil {
			return err
		}
		for range d.Streams {
			s, err := m.OpenStream(context.Background())
			if err != nil {
				return err
			}
			if _, err := s.Write(d.Payload); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stdout.WriteString("written\n"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // ends with the test, whatever happens
	return err
}

// beDoomed does what the parent asks for.
func beDoomed() int {
	var d doomed
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&d); err != nil {
		return 2
	}
	if err := d.run(); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// Nothing says goodbye for a process that is killed.
func TestWhatAKilledProcessHadSentIsReadBeforeTheError(t *testing.T) {
	t.Parallel() // it waits most of the time
	ca := testca.New(t)
	l := listen(t, ca, quic.ListenConfig{Config: quic.Config{IdleTimeout: 5 * time.Second}})
	agent := ca.Agent("doomed")
	key, err := x509.MarshalPKCS8PrivateKey(agent.Certificates[0].PrivateKey)
	require.NoError(t, err)
	witness, _ := connect(t, l, &quic.Dialer{TLSClientConfig: agent})
	chain := witness.ConnectionState().VerifiedChains[0]
	const streams = 64
	d := doomed{
		Gateway:     urlOf(l.Addr()),
		Certificate: agent.Certificates[0].Certificate[0],
		Key:         key,
		CAs:         chain[len(chain)-1].Raw,
		Connections: 4,
		Streams:     streams,
		Payload:     bytes.Repeat([]byte("0123456789"), 300),
	}
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.CommandContext(soon(t), self)
	child.Env = append(os.Environ(), doomedVariable+"=yes")
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	killed := false
	kill := func() {
		if !killed {
			_ = child.Process.Kill()
			_ = child.Wait()
			killed = true
		}
	}
	t.Cleanup(kill)
	require.NoError(t, json.NewEncoder(in).Encode(d))

	type arrival struct {
		m      transport.Mux
		stream transport.Stream
	}
	var arrived []arrival
	for range d.Connections {
		m, err := l.Accept(soon(t))
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
		for range streams {
			s, err := m.AcceptStream(soon(t))
			require.NoError(t, err)
			arrived = append(arrived, arrival{m, s})
		}
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "written\n", line)
	<-time.After(500 * time.Millisecond) // the last packets are under way
	kill()

	var (
		readers sync.WaitGroup
		total   atomic.Int64
	)
	for i, a := range arrived {
		readers.Go(func() {
			defer a.stream.Close()
			if i%2 == 0 {
				<-a.m.Context().Done()
			}
			got, err := io.ReadAll(a.stream)
			assert.ErrorIs(t, err, transport.Timeout)
			assert.True(t, bytes.HasPrefix(d.Payload, got))
			total.Add(int64(len(got)))
		})
	}
	readers.Wait()
	// What the kernel dropped nobody sends again. There is no reason to drop much.
	assert.Greater(t, total.Load(), int64(len(arrived)*len(d.Payload)*9/10))
}
