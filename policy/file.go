package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const defaultInterval = 500 * time.Millisecond

// File is a [Policy] that follows a policy document on disk. A document that cannot be
// read or parsed leaves the one before in force; until the first one is in force, File
// denies everything. All streams see a new document at once; a tunnel that uses the File
// resets the streams that the new document forbids.
//
//	file := &policy.File{Path: "policy.yaml", Logger: logger}
//	if err := file.Reload(); err != nil {
//		return err
//	}
//	go file.Run(ctx)
//
// The exported fields must not be changed after the first call; all methods may be
// called concurrently.
type File struct {
	Path string

	// Interval is the time between two looks of Run; 0 or less means 500 ms.
	Interval time.Duration

	// Parse reads the document, for a policy that is a part of a larger file. Nil is
	// [Parse].
	Parse func(io.Reader) (*Rules, error)

	// Logger is told by Run of every change and every failure. Nil is silent.
	Logger *slog.Logger

	rules atomic.Pointer[Rules]

	mu       sync.Mutex
	last     content // that was parsed last, in force or not
	status   FileStatus
	watchers map[*func()]struct{}
}

// FileStatus is a snapshot of a [File].
type FileStatus struct {
	Digest   string    // of the document in force; empty when there is none
	Since    time.Time // when it came into force
	Err      error     // why the file as it is now is not in force; nil when it is
	Reloads  uint64    // documents that came into force; never falls
	Failures uint64    // documents that were refused, and failures to read one; never falls
}

var (
	_ SpecialAllower = (*File)(nil)
	_ Auditor        = (*File)(nil)
	_ Changer        = (*File)(nil)
	_ Digester       = (*File)(nil)
	_ Explainer      = (*File)(nil)
)

// content is what a look at the file saw.
type content struct {
	seen bool
	sum  [sha256.Size]byte
	err  string // why it could not be read
}

func (f *File) read() ([]byte, content, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, content{seen: true, err: err.Error()}, err
	}
	defer file.Close()
	// One byte more than is allowed, for Parse to refuse.
	text, err := io.ReadAll(io.LimitReader(file, MaxDocument+1))
	if err != nil {
		return nil, content{seen: true, err: err.Error()}, err
	}
	return text, content{seen: true, sum: sha256.Sum256(text)}, nil
}

// Reload looks at the file now. It returns nil when what the file says is in force, and
// otherwise why it is not: a *[SyntaxError] or an *fs.PathError is in it.
func (f *File) Reload() error {
	text, saw, err := f.read()
	_, err = f.take(text, saw, err)
	return err
}

// take puts a document in force, unless it was tried already, and tells the watchers.
func (f *File) take(text []byte, saw content, readErr error) (tried bool, err error) {
	f.mu.Lock()
	if saw == f.last {
		defer f.mu.Unlock()
		return false, f.status.Err
	}
	before := f.status.Digest
	err = f.try(text, saw, readErr)
	var watchers []*func()
	if f.status.Digest != before {
		watchers = slices.Collect(maps.Keys(f.watchers))
	}
	f.mu.Unlock()
	for _, watcher := range watchers {
		(*watcher)()
	}
	return true, err
}

func (f *File) try(text []byte, saw content, readErr error) error {
	f.last = saw
	rules, err := f.parse(text, readErr)
	if err != nil {
		f.status.Failures++
		f.status.Err = fmt.Errorf("policy: file %s: %w", f.Path, err)
		return f.status.Err
	}
	f.rules.Store(rules)
	f.status.Err = nil
	f.status.Digest, f.status.Since = rules.Digest(), time.Now()
	f.status.Reloads++
	return nil
}

func (f *File) parse(text []byte, readErr error) (*Rules, error) {
	switch {
	case readErr != nil:
		return nil, readErr
	case f.Parse != nil:
		return f.Parse(bytes.NewReader(text))
	}
	return Parse(bytes.NewReader(text))
}

// Run looks at the file every Interval until ctx ends, and returns the cause of ctx. It
// compares contents, so an atomic rename, a rewrite in place and the symbolic links of a
// Kubernetes ConfigMap are all noticed. A change is taken when two looks in a row have
// seen the same, so that a file that is being written is not taken half.
func (f *File) Run(ctx context.Context) error {
	log := f.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ticker := time.NewTicker(positive(f.Interval, defaultInterval))
	defer ticker.Stop()
	var before content
	for {
		text, saw, err := f.read()
		if saw == before || !f.tried() {
			f.note(log, text, saw, err)
		}
		before = saw
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (f *File) tried() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last.seen
}

func (f *File) note(log *slog.Logger, text []byte, saw content, readErr error) {
	tried, err := f.take(text, saw, readErr)
	switch st := f.Status(); {
	case !tried:
	case err != nil && st.Digest == "":
		log.Error("no policy is in force: everything is denied", "path", f.Path, "error", err)
	case err != nil:
		log.Error("the policy before stays in force", "path", f.Path, "digest", st.Digest, "since", st.Since, "error", err)
	default:
		log.Info("policy in force", "path", f.Path, "digest", st.Digest)
	}
}

// Status returns what is in force and what is wrong.
func (f *File) Status() FileStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Rules returns what is in force; nil, which denies everything, when nothing is.
func (f *File) Rules() *Rules { return f.rules.Load() }

// Authorize asks what is in force.
func (f *File) Authorize(ctx context.Context, r Request) error { return f.Rules().Authorize(ctx, r) }

// AllowSpecial asks what is in force.
func (f *File) AllowSpecial(r Request) bool { return f.Rules().AllowSpecial(r) }

// WouldDeny asks what is in force.
func (f *File) WouldDeny(r Request) *Denied { return f.Rules().WouldDeny(r) }

// Explain asks what is in force.
func (f *File) Explain(r Request) Decision { return f.Rules().Explain(r) }

// Digest is that of what is in force.
func (f *File) Digest() string { return f.Rules().Digest() }

// OnChange calls watcher when a document with another digest has come into force.
func (f *File) OnChange(watcher func()) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == nil {
		f.watchers = map[*func()]struct{}{}
	}
	key := &watcher
	f.watchers[key] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, key)
	}
}
