package transporttest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func backpressureTests() []test {
	return []test{{"the writer waits for the reader, then all arrives", backpressure}}
}

func backpressure(t *trial) {
	t.eachWay(func(c oneWay) {
		writer, reader := t.open(c)
		taken, err := fill(writer, 300*time.Millisecond, t.most())
		require.NoError(t, err, c.name)

		const more = 3 << 20
		write := async(func() error { return writeMore(writer, taken, more) })
		read := async(func() error { return readPattern(reader, taken+more) })
		require.NoError(t, wait(t, write, c.name+": the writer, after its reader came back"), c.name)
		require.NoError(t, wait(t, read, c.name+": the reader"), c.name)
	})
}

// writeMore goes on with the pattern after a fill, then ends the direction.
func writeMore(s transport.Stream, offset, n int) error {
	if err := s.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear the deadline: %w", err)
	}
	for end := offset + n; offset < end; {
		written, err := s.Write(pattern(offset, min(32<<10, end-offset)))
		offset += written
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("the deadline was cleared and still ended a Write")
		}
		if err != nil {
			return fmt.Errorf("Write: %w", err)
		}
	}
	return s.CloseWrite()
}

// readPattern reads to the end and expects n bytes of the pattern.
func readPattern(s transport.Stream, n int) error {
	buf := make([]byte, 32<<10)
	total := 0
	for {
		read, err := s.Read(buf)
		if string(buf[:read]) != string(pattern(total, read)) {
			return fmt.Errorf("what was read after byte %d is not what was written", total)
		}
		total += read
		switch {
		case err == io.EOF && total == n:
			return nil
		case err == io.EOF:
			return fmt.Errorf("io.EOF after %d bytes, written were %d", total, n)
		case err != nil:
			return fmt.Errorf("Read after %d bytes: %w", total, err)
		}
	}
}
