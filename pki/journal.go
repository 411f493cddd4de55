package pki

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
)

// A journal is a text file: a header line, then one line for each change: the
// CRC-32C of the change and its length, each in 8 hex digits, and the change in
// JSON, with a space between the three.
const (
	journalHeader = "outgate pki journal 1\n"
	prefixLen     = 8 + 1 + 8 + 1
	maxLine       = 16 << 20
)

var (
	errTorn     = errors.New("incomplete line")
	errChecksum = errors.New("wrong checksum")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

type journal struct {
	file    *os.File
	end     int64 // offset behind the last line that is known to be whole
	lines   int
	tainted bool // what the disk holds beyond end is unknown
}

// openJournal replays a journal into apply. What a crash left of the last line
// is cut off: it was never acknowledged. Damage elsewhere is an error.
func openJournal(root *os.Root, name string, apply func(*change)) (_ *journal, err error) {
	f, err := openPrivate(root, name, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	r := bufio.NewReaderSize(f, 64<<10)
	header, err := readLine(r, len(journalHeader))
	if err != nil || string(header) != journalHeader {
		return nil, errors.New("not a journal of this version; it was left as it is")
	}
	j.end = int64(len(journalHeader))
	for {
		line, err := readLine(r, maxLine)
		if err == io.EOF {
			return j, nil
		}
		var c *change
		if err == nil {
			c, err = decodeChange(line)
		}
		if err != nil {
			// The pages of the last write may have reached the disk in any order,
			// so its newline can be there and the rest not.
			_, more := r.Peek(1)
			if (errors.Is(err, errTorn) || errors.Is(err, errChecksum)) && more == io.EOF && !outgrown(line) {
				return j, j.cut()
			}
			return nil, fmt.Errorf("line %d is damaged (%w); restore the file from a backup", j.lines+2, err)
		}
		apply(c)
		j.end += int64(len(line))
		j.lines++
	}
}

// append writes one change and returns when it is on disk.
func (j *journal) append(c *change) error {
	line, err := encodeChange(c)
	if err != nil {
		return err
	}
	if _, err := j.file.WriteAt(line, j.end); err != nil {
		// A full disk is no reason to give up, if what was written can go.
		return errors.Join(err, j.cut())
	}
	if err := j.file.Sync(); err != nil {
		// The kernel may have dropped the pages and call the next sync a
		// success, so there is no second try.
		j.tainted = true
		return err
	}
	j.end += int64(len(line))
	j.lines++
	return nil
}

// cut removes what lies behind the last whole line.
func (j *journal) cut() error {
	err := j.file.Truncate(j.end)
	if err == nil {
		err = j.file.Sync()
	}
	j.tainted = err != nil
	return err
}

// is reports whether the file of that name is the one that j writes.
func (j *journal) is(root *os.Root, name string) bool {
	if j == nil {
		return false
	}
	there, err := root.Lstat(name)
	if err != nil {
		return false
	}
	mine, err := j.file.Stat()
	return err == nil && os.SameFile(there, mine)
}

func (j *journal) close() error { return j.file.Close() }

// readLine returns the next line with its newline. It returns what there is and
// errTorn when the input ends inside a line, and io.EOF when it ends before it.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("line is longer than %d bytes", limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err != io.EOF:
			return nil, err
		case len(line) > 0:
			return line, errTorn
		default:
			return nil, io.EOF
		}
	}
}

func encodeChange(c *change) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if prefixLen+len(body)+1 > maxLine {
		return nil, fmt.Errorf("change is larger than %d bytes", maxLine)
	}
	line := make([]byte, 0, prefixLen+len(body)+1)
	line = fmt.Appendf(line, "%08x %08x ", crc32.Checksum(body, castagnoli), len(body))
	line = append(line, body...)
	return append(line, '\n'), nil
}

func decodeChange(line []byte) (*change, error) {
	body := bytes.TrimSuffix(line[min(len(line), prefixLen):], []byte("\n"))
	prefix := fmt.Appendf(nil, "%08x %08x ", crc32.Checksum(body, castagnoli), len(body))
	if !bytes.HasPrefix(line, prefix) {
		return nil, errChecksum
	}
	c := new(change)
	if err := json.Unmarshal(body, c); err != nil {
		return nil, err
	}
	return c, nil
}

// outgrown reports whether a line that cannot be read is longer than it says it
// is. No crash does that; the end of the line is damaged and others are in it.
func outgrown(line []byte) bool {
	if len(line) < prefixLen {
		return false
	}
	length, err := strconv.ParseUint(string(line[9:17]), 16, 32)
	return err == nil && uint64(len(line)) > prefixLen+length+1
}

// encodeLedger writes a whole journal, one record a line.
func encodeLedger(l *ledger) ([]byte, error) {
	data := []byte(journalHeader)
	add := func(c change) error {
		line, err := encodeChange(&c)
		data = append(data, line...)
		return err
	}
	for name, a := range l.agents {
		if err := add(change{Agents: map[string]AgentRecord{name: a}}); err != nil {
			return nil, err
		}
	}
	for id, g := range l.grants {
		if err := add(change{Grants: map[string]GrantRecord{id: g}}); err != nil {
			return nil, err
		}
	}
	for serial, c := range l.certificates {
		if err := add(change{Certificates: map[string]CertificateRecord{serial: c}}); err != nil {
			return nil, err
		}
	}
	for _, r := range l.revocations {
		if err := add(change{Revocations: []RevocationRecord{r}}); err != nil {
			return nil, err
		}
	}
	return data, nil
}
