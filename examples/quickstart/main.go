// Command quickstart is Outgate in one process: a gateway, an agent, and a
// private web page that only the agent can reach. They talk over real TLS
// sockets on loopback, by WebSocket and by QUIC. Nothing is written to disk.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart -v                      # with the logs of both sides
//	go run ./examples/quickstart -postgres 'postgres://user:password@127.0.0.1/app?sslmode=require'
//
// Each step is printed with the time since the start. The exit code is 0 if all
// of them held, and 1 with the one that did not.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"
)

func main() {
	var q quickstart
	flag.StringVar(&q.postgres, "postgres", "", "also query the PostgreSQL with this connection `string`, through the agent")
	verbose := flag.Bool("v", false, "log what gateway and agent do to stderr")
	flag.Parse()

	level := slog.LevelError + 1
	if *verbose {
		level = slog.LevelDebug
	}
	q.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	q.story = newStory(os.Stdout)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	err := q.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart failed:", err)
		os.Exit(1)
	}
}
