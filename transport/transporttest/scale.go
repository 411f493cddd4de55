package transporttest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func scaleTests() []test {
	return []test{
		{"1 000 streams at once, 10 messages each", manyStreams},
		{"10 MiB there and back, on four streams at once", bigEchoes},
	}
}

func manyStreams(t *trial) {
	count := 1000
	if testing.Short() {
		count = 200
	}
	if limit := t.harness.MaxStreams; limit > 0 {
		count = min(count, limit)
	}
	p := t.connect()
	go echo(t, p.Dialed)
	streams := make([]transport.Stream, count)
	for i := range streams { // all of them are open before any says more
		streams[i] = t.openOnly(p.Accepted)
	}
	errs := make([]error, count)
	var wg sync.WaitGroup
	for i, s := range streams {
		wg.Go(func() { errs[i] = converse(s, i, 3*t.patience) })
	}
	wg.Wait()
	for i, err := range errs {
		require.NoError(t, err, "stream %d of %d", i, count)
	}
}

// converse exchanges ten messages that no other stream sends.
func converse(s transport.Stream, id int, limit time.Duration) error {
	if err := readGreeting(s, limit); err != nil {
		return fmt.Errorf("echo of the first byte: %w", err)
	}
	for i := range 10 {
		sent := bytes.Repeat(fmt.Appendf(nil, "stream %d, message %d;", id, i), 1+i)
		if _, err := s.Write(sent); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(s, got); err != nil {
			return fmt.Errorf("echo of message %d: %w", i, err)
		}
		if !bytes.Equal(got, sent) {
			return fmt.Errorf("echo of message %d is %q", i, got)
		}
	}
	if err := s.CloseWrite(); err != nil {
		return fmt.Errorf("CloseWrite: %w", err)
	}
	if n, err := s.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("after the last message: %d bytes, %w", n, err)
	}
	return s.Close()
}

func bigEchoes(t *trial) {
	size := 10 << 20
	if testing.Short() {
		size = 2 << 20
	}
	p := t.connect()
	go echo(t, p.Dialed)
	go echo(t, p.Accepted)
	data := pattern(0, size)
	var echoes []pending
	for i := range 4 {
		from := p.Dialed
		if i%2 == 1 {
			from = p.Accepted
		}
		s := t.openOnly(from)
		require.NoError(t, readGreeting(s, t.patience))
		write := async(func() error {
			if _, err := s.Write(data); err != nil {
				return fmt.Errorf("Write: %w", err)
			}
			return s.CloseWrite()
		})
		read := async(func() error {
			sum := sha256.New()
			if n, err := io.Copy(sum, movement{s, t}); err != nil {
				return fmt.Errorf("after %d bytes: %w", n, err)
			}
			if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
				return fmt.Errorf("the checksum differs")
			}
			return nil
		})
		echoes = append(echoes, pending{fmt.Sprintf("writer %d", i), write}, pending{fmt.Sprintf("echo %d", i), read})
	}
	for _, e := range echoes {
		require.NoError(t, waitMoving(t, e.err, e.what), e.what)
	}
}

// movement is a Reader that tells its trial what it has read.
type movement struct {
	io.Reader
	trial *trial
}

func (m movement) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.trial.moved.Add(int64(n))
	return n, err
}
