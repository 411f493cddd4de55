//go:build unix

package pgtest

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Name is a host name that the server's certificate holds and no DNS resolves:
// an agent that is to reach the server by name resolves it to [Server.Host].
const Name = "postgres.test"

// Server is a running PostgreSQL.
type Server struct {
	Host     string // 127.0.0.1; TCP connections must use TLS
	Port     uint16 // below 32768, where the system takes no ports for clients from
	User     string // a superuser
	Password string
	Database string

	CA        *x509.CertPool // what the server's certificate chains to
	CAFile    string         // the same, in PEM
	SocketDir string         // of the unix socket, which wants the password, too

	bin string // of the programs
}

// Start starts a server and returns when it takes connections. The test's
// cleanup stops it and removes its files.
func Start(tb testing.TB) *Server {
	tb.Helper()
	bin, err := newestBin()
	if err != nil {
		tb.Fatal(err)
	}
	owner, err := serverUser()
	if err != nil {
		tb.Fatal(err)
	}
	// Not tb.TempDir: the server's user must be able to enter, and the path of a
	// unix socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("pgtest: clean up: %v", err)
		}
	})
	s := &Server{
		Host:      "127.0.0.1",
		User:      "app",
		Password:  rand.Text(),
		Database:  "postgres",
		CAFile:    filepath.Join(dir, "ca.crt"),
		SocketDir: dir,
		bin:       bin,
	}
	if s.CA, err = writeCertificates(dir); err != nil {
		tb.Fatalf("pgtest: make certificates: %v", err)
	}
	c := &cluster{bin: bin, dir: dir, owner: owner}
	if err := c.init(tb.Context(), s.User, s.Password); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	stop, err := c.start(tb.Context(), &s.Port)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Errorf("pgtest: stop: %v", err)
		}
	})
	return s
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string {
	return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port)))
}

// Socket is the path of the unix socket.
func (s *Server) Socket() string {
	return filepath.Join(s.SocketDir, fmt.Sprintf(".s.PGSQL.%d", s.Port))
}

// DSN is a connection string for the server at its own address.
func (s *Server) DSN() string { return s.DSNAt(s.Addr()) }

// DSNAt is a connection string for the server as it is reached at hostport. The
// server's certificate is verified in full and must hold the host of it: it
// holds localhost, 127.0.0.1, ::1 and [Name].
func (s *Server) DSNAt(hostport string) string {
	u := url.URL{
		Scheme: "postgres",
		User:   url.UserPassword(s.User, s.Password),
		Host:   hostport,
		Path:   "/" + s.Database,
		RawQuery: url.Values{
			"sslmode":     {"verify-full"},
			"sslrootcert": {s.CAFile},
		}.Encode(),
	}
	return u.String()
}

// Program is the path of one of PostgreSQL's own programs, such as psql.
func (s *Server) Program(name string) string { return filepath.Join(s.bin, name) }
