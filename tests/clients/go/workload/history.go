package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sync"
	"time"

	"bonsai/clients/must"
)

// history writes what clients asked and were told as JSON lines, in the order of time; common/sim/README.md
// has the shapes. A process has one operation at a time, and none after one that ended with info.
type history struct {
	mu     sync.Mutex
	file   *os.File
	w      *bufio.Writer
	start  time.Time
	index  int
	next   int // number of a process that was not used yet
	counts map[string]int
}

type event struct {
	Index   int    `json:"index"`
	Time    int64  `json:"time"`
	Process int    `json:"process"`
	Type    string `json:"type"`
	F       string `json:"f"`
	Key     string `json:"key,omitempty"`
	Value   any    `json:"value"`
}

func newHistory(path string) *history {
	f, err := os.Create(path)
	must.Check(err == nil, "%v", err)
	return &history{file: f, w: bufio.NewWriter(f), start: time.Now(), counts: map[string]int{}}
}

func (h *history) process() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	return h.next - 1
}

func (h *history) line(process int, kind, f, key string, value any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text, err := json.Marshal(event{h.index, int64(time.Since(h.start)), process, kind, f, key, value})
	must.Check(err == nil, "%v", err)
	h.index++
	h.counts[kind]++
	h.w.Write(append(text, '\n'))
}

func (h *history) close() {
	must.Check(h.w.Flush() == nil && h.file.Close() == nil, "the history cannot be written")
}

// A client is one process after another: after an unknown outcome it goes on as a new one.
type client struct {
	h       *history
	process int
}

func newClient(h *history) *client {
	return &client{h, h.process()}
}

// A definite failure: nothing happened.
type failure struct{ error }

// Runs op between invoke and its completion. A plain error leaves the outcome unknown.
func (c *client) call(f, key string, in any, op func() (any, error)) {
	c.h.line(c.process, "invoke", f, key, in)
	out, err := op()
	switch err.(type) {
	case nil:
		c.h.line(c.process, "ok", f, key, out)
	case failure:
		c.h.line(c.process, "fail", f, key, nil)
	default:
		c.h.line(c.process, "info", f, key, nil)
		c.process = c.h.process()
	}
}
