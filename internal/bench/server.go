package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Spec says how a server is started.
type Spec struct {
	Name string // for messages
	Path string // executable
	// Args are the arguments, given the data folder and the ports.
	Args  func(dir string, ports []int) []string
	Ports int // how many free ports it needs; the first is where it must answer
	// File, when not nil, is written as "config" into the data folder first.
	File func(dir string, ports []int) string
}

// Server is a started server with a data folder of its own on loopback.
type Server struct {
	spec  Spec
	dir   string
	ports []int

	cmd     *exec.Cmd
	output  *tail
	started time.Time
	exited  <-chan struct{}
}

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// Start starts a server with its data in a new folder under dir, and waits
// until its first port answers.
func Start(ctx context.Context, spec Spec, dir string) (*Server, error) {
	data, err := os.MkdirTemp(dir, "bench-"+spec.Name+"-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if data, err = filepath.Abs(data); err != nil {
		return nil, err
	}
	s := &Server{spec: spec, dir: data}
	if s.ports, err = freePorts(spec.Ports); err != nil {
		return nil, err
	}
	if err := errors.Join(s.configure(), s.start(ctx)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(data))
	}
	return s, nil
}

// configure writes the file that the server is given, if any.
func (s *Server) configure() error {
	if s.spec.File == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.dir, "config"), []byte(s.Config()), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// freePorts asks the kernel for ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find free port: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Addr is HOST:PORT of the port with this number.
func (s *Server) Addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", s.ports[i]) }

// Started is when the process was last started.
func (s *Server) Started() time.Time { return s.started }

// Processes is the running process.
func (s *Server) Processes() Processes { return Processes{s.cmd.Process.Pid} }

// Command is how the server was started, for people.
func (s *Server) Command() string {
	return strings.Join(append([]string{filepath.Base(s.spec.Path)}, s.cmd.Args[1:]...), " ")
}

// Config is the file that the server was given, if any.
func (s *Server) Config() string {
	if s.spec.File == nil {
		return ""
	}
	return s.spec.File(s.dir, s.ports)
}

func (s *Server) start(ctx context.Context) error {
	s.output = &tail{}
	s.cmd = exec.Command(s.spec.Path, s.spec.Args(s.dir, s.ports)...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = s.output, s.output, s.dir
	s.started = time.Now()
	var err error
	if s.exited, err = startBound(s.cmd); err != nil {
		return fmt.Errorf("start %s: %w", s.spec.Name, err)
	}
	if err := s.answers(ctx); err != nil {
		_ = s.cmd.Process.Kill() // gone already, or gone now
		<-s.exited
		return err
	}
	return nil
}

func (s *Server) answers(ctx context.Context) error {
	for time.Since(s.started) < startTimeout {
		conn, err := net.DialTimeout("tcp", s.Addr(0), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-s.exited:
			return s.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	return fmt.Errorf("start %s: no answer on %s within %s: %s", s.spec.Name, s.Addr(0), startTimeout, s.output)
}

// errEnded is a server that did not stay, as when a port of its was taken.
var errEnded = errors.New("it ended")

func (s *Server) ended() error {
	return fmt.Errorf("start %s: %w: %s", s.spec.Name, errEnded, s.output)
}

// running says whether the process has not ended.
func (s *Server) running() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Kill ends the process as a crash would.
func (s *Server) Kill() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", s.spec.Name, err)
	}
	<-s.exited
	return nil
}

// Restart kills the process as a crash would, and starts it on its old data.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.start(ctx)
}

// Stop ends the process and removes its data.
func (s *Server) Stop() error { return errors.Join(s.halt(), os.RemoveAll(s.dir)) }

// halt ends the process.
func (s *Server) halt() (err error) {
	if s.cmd.Process.Signal(os.Interrupt) != nil {
		_ = s.cmd.Process.Kill() // it has ended already, or this system has no signals
	}
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.exited
		err = fmt.Errorf("stop %s: it did not end within %s", s.spec.Name, stopTimeout)
	}
	return err
}

// tail keeps the end of what a process says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 2048 // bytes

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = append(t.b[:0], t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.b))
}
