package main

import (
	"bufio"
	"encoding/json"
	"os"
	"sort"
	"sync"
	"time"
)

// history is what happened, as JSON lines, for another checker. A call is two events: its invocation,
// and its end, which is ok, fail (it certainly did not happen) or info (nobody knows).
type history struct {
	mu     sync.Mutex
	start  time.Time
	events []event
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

func newHistory() *history { return &history{start: time.Now()} }

// call is one that began at `began` and ends now.
func (h *history) call(process *int, f, key string, asked, got any, end string, began time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := event{Time: int64(began.Sub(h.start)), Process: *process, Type: "invoke", F: f, Key: key, Value: asked}
	h.events = append(h.events, e)
	e.Time, e.Type, e.Value = int64(time.Since(h.start)), end, got
	h.events = append(h.events, e)
	if end == "info" {
		*process += 1000 // it may still happen: the client goes on as another process
	}
}

func (h *history) write(path string) error {
	sort.SliceStable(h.events, func(i, j int) bool { return h.events[i].Time < h.events[j].Time })
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i, e := range h.events {
		e.Index = i
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return w.Flush()
}
