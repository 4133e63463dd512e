package opencode_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// pipeNet is a network of pipes with one server on it. Nothing of it leaves the bubble
// of fake time in which it was made.
type pipeNet struct {
	accept chan net.Conn
	done   chan struct{}
	once   sync.Once

	mu     sync.Mutex
	open   []net.Conn
	dialed map[string]int // connections by address
	refuse bool           // nobody listens
	chop   int            // the server's writes reach the client in pieces of so many bytes; 0: as they are
}

var errRefused = errors.New("connection refused")

func newPipeNet() *pipeNet {
	return &pipeNet{accept: make(chan net.Conn), done: make(chan struct{}), dialed: map[string]int{}}
}

// Dial connects to the server, under whatever address: who is told to go elsewhere is
// found out by dials.
func (p *pipeNet) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed[addr]++
	refuse, chop := p.refuse, p.chop
	p.mu.Unlock()
	if refuse {
		return nil, errRefused
	}
	client, server := net.Pipe()
	p.set(func(p *pipeNet) { p.open = append(p.open, server) })
	if chop > 0 {
		server = &choppedConn{server, chop}
	}
	select {
	case p.accept <- server:
		return client, nil
	case <-p.done:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipeNet) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// addresses are what was dialed.
func (p *pipeNet) addresses() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr := range p.dialed {
		all = append(all, addr)
	}
	return all
}

// set changes how the network behaves for connections made from now on.
func (p *pipeNet) set(change func(*pipeNet)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// cut breaks off all connections.
func (p *pipeNet) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

// transport is a client's way into the network.
func (p *pipeNet) transport() *http.Transport { return &http.Transport{DialContext: p.Dial} }

// choppedConn writes in pieces, each of which is one Read of the other side at best.
type choppedConn struct {
	net.Conn
	size int
}

func (c *choppedConn) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k, err := c.Conn.Write(b[:min(c.size, len(b))])
		n += k
		if err != nil {
			return n, err
		}
		b = b[k:]
	}
	return n, nil
}
