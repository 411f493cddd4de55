package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// database is what -postgres names.
type database struct {
	config    *pgx.ConnConfig // nil: none
	endpoints []string        // addresses that the agent must be allowed to reach
}

func parseDatabase(ctx context.Context, dsn string) (database, error) {
	if dsn == "" {
		return database{}, nil
	}
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return database{}, fmt.Errorf("-postgres: %w", err)
	}
	if strings.HasPrefix(config.Host, "/") || config.Host == "" {
		return database{}, errors.New("-postgres: name a host that is reached by TCP, not a unix socket")
	}
	addrs, err := net.DefaultResolver.LookupHost(ctx, config.Host)
	if err != nil {
		return database{}, fmt.Errorf("-postgres: %w", err)
	}
	d := database{config: config}
	for _, a := range addrs {
		d.endpoints = append(d.endpoints, net.JoinHostPort(a, strconv.Itoa(int(config.Port))))
	}
	return d, nil
}

// query asks the database through the agent. TLS, if the connection string asks
// for it, is between this driver and the database: the tunnel does not see inside.
func (q *quickstart) query(ctx context.Context, gw *gateway, d database) error {
	if d.config == nil {
		return nil
	}
	config := d.config.Copy()
	config.DialFunc = pgconn.DialFunc(gw.tunnel.Dialer(agentName, "alice"))
	// The agent resolves names, in its own network.
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "select split_part(version(), ' on ', 1)").Scan(&version); err != nil {
		return fmt.Errorf("query PostgreSQL: %w", err)
	}
	q.story.tell("queried", "%s at %s:%d", version, config.Host, config.Port)
	return nil
}
