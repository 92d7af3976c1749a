package main

import (
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// complaints runs f and takes what it complained of.
func complaints(f func()) string {
	failures = nil
	f()
	got := strings.Join(failures, "; ")
	failures = nil
	return got
}

func expect(t *testing.T, want, got string) {
	t.Helper()
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("expected %q, got %q", want, got)
	}
}

func TestListsTellWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ final, read, want string }{
		{"1,11,", "1,", ""},
		{"1,11,29,", "", ""},
		{"1,", "", "11 was acknowledged and is there 0 times"},
		{"1,11,1,", "", "1 was acknowledged and is there 2 times"},
		{"1,11,29,29,", "", "29 is there 2 times"},
		{"1,11,77,", "", "77 was never acknowledged"},
		{"11,1,", "1,", "no beginning of the final list"},
	} {
		x := &list{acked: []int{1, 11}, unknown: []int{29}, reads: []string{c.read}}
		expect(t, c.want, complaints(func() { x.check("m", c.final) }))
	}
}

func told(kind mvccpb.Event_EventType, key string, revision, version int64) *clientv3.Event {
	e := &clientv3.Event{Type: kind, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision, Version: version}}
	if version > 1 {
		e.PrevKv = &mvccpb.KeyValue{Key: []byte(key), Version: version - 1}
	}
	return e
}

func TestWatchesTellWhatIsWrong(t *testing.T) {
	put, del := clientv3.EventTypePut, clientv3.EventTypeDelete
	for _, c := range []struct {
		events []*clientv3.Event
		want   string
	}{
		{[]*clientv3.Event{told(put, "a", 5, 1), told(put, "b", 5, 1), told(put, "a", 6, 2), told(del, "a", 7, 0), told(put, "a", 8, 1)}, ""},
		{[]*clientv3.Event{told(put, "a", 5, 1), told(put, "b", 7, 1)}, "revision 7 after 5"},
		{[]*clientv3.Event{told(put, "a", 5, 1), told(put, "b", 6, 1), told(put, "c", 5, 1)}, "revision 5 after 6"},
		{[]*clientv3.Event{told(put, "a", 6, 1)}, "revision 6 after 4"},
		{[]*clientv3.Event{told(put, "a", 5, 1), told(put, "a", 6, 3)}, "version 3 after 1"},
		{[]*clientv3.Event{told(put, "a", 5, 1), told(put, "a", 5, 1)}, "version 1 after 1"},
	} {
		w := newWatch("m", 5, newLeases(""))
		expect(t, c.want, complaints(func() {
			for _, e := range c.events {
				w.take(e)
			}
		}))
	}
}

func TestTwoWatchesMustTellTheSame(t *testing.T) {
	a, b := newWatch("a", 5, newLeases("")), newWatch("b", 5, newLeases(""))
	a.take(told(clientv3.EventTypePut, "k", 5, 1))
	expect(t, "a told 1 events, b 0", complaints(func() { a.compare(b) }))
	b.take(told(clientv3.EventTypePut, "K", 5, 1))
	expect(t, "or others", complaints(func() { a.compare(b) }))
}

func TestAnEarlyEndOfALeaseIsTold(t *testing.T) {
	l := newLeases("")
	l.live["early"] = &lease{earliest: time.Now().Add(time.Second)}
	l.live["late"] = &lease{earliest: time.Now().Add(-time.Second)}
	expect(t, "", complaints(func() { l.gone("late", 1); l.gone("other", 2) }))
	expect(t, "early went", complaints(func() { l.gone("early", 3) }))
}
