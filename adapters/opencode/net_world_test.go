package opencode_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// netWorld is a manager over a client of a fake server, with one parent there.
type netWorld struct {
	t         *testing.T
	f         *fakeOpencode
	oc        *opencode.Client
	m         *subagent.BackgroundManager
	box       *postbox
	transport *http.Transport
	parent    *fakeSession
	stop      context.CancelFunc
	ran       chan error // what Run returned
}

func newNetWorld(t *testing.T, f *fakeOpencode, change ...func(*opencode.Config)) *netWorld {
	w := &netWorld{t: t, f: f, transport: f.net.transport(), ran: make(chan error, 1), parent: f.root("/d")}
	cfg := opencode.Config{URL: f.url(), Transport: w.transport}
	for _, do := range change {
		do(&cfg)
	}
	var err error
	w.oc, err = opencode.New(cfg)
	require.NoError(t, err)
	w.box = &postbox{client: w.oc}
	w.m, err = subagent.New(w.oc, subagent.Config{Notifier: w.box})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.ran <- w.oc.Run(ctx, w.m.HandleEvent) }()
	t.Cleanup(func() { // also of a test that fails
		_ = w.m.Close()
		stop()
		w.transport.CloseIdleConnections()
	})
	return w
}

// postbox keeps what the client says that parents have.
type postbox struct {
	client subagent.Notifier

	mu       sync.Mutex
	accepted []subagent.Notification
}

func (b *postbox) Notify(ctx context.Context, n subagent.Notification) (subagent.Delivery, error) {
	d, err := b.client.Notify(ctx, n)
	if d == subagent.Accepted && err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.accepted = append(b.accepted, n)
	}
	return d, err
}

// all is that by now.
func (b *postbox) all() []subagent.Notification {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.accepted)
}

// launch starts a child. A server that can't be asked refuses it, and is asked again.
func (w *netWorld) launch(script string) subagent.TaskID {
	w.t.Helper()
	for {
		task, err := w.m.Launch(w.t.Context(), subagent.LaunchInput{Parent: subagent.SessionID(w.parent.id), Agent: "build", Prompt: "Please.\nSCRIPT: " + script})
		if err == nil {
			return task.ID
		}
		require.ErrorIs(w.t, err, subagent.ErrLineage)
		time.Sleep(7 * time.Second)
	}
}

// settle waits until all tasks have ended and the parent has been told, or telling it
// has been given up for now.
func (w *netWorld) settle() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Hour)
	defer cancel()
	_, err := w.m.WaitAll(ctx, subagent.Filter{})
	require.NoError(w.t, err, "a task does not end: %+v", w.m.List(subagent.Filter{Statuses: []subagent.Status{subagent.Starting, subagent.Running, subagent.Stopping}}))
	for until := time.Now().Add(3 * time.Hour); ; time.Sleep(time.Second) {
		owed := w.m.Pending(subagent.SessionID(w.parent.id))
		if !owed.InFlight && (len(owed.Notices) == 0 || owed.Parked) {
			return
		}
		require.True(w.t, time.Now().Before(until), "a parent is not told: %+v", owed)
	}
}

// close ends the world on a server that does well again, and nothing goes on there.
func (w *netWorld) close() {
	w.t.Helper()
	require.NoError(w.t, w.end())
}

// end is close of a world in which calls that stop children may have failed too long.
func (w *netWorld) end() error {
	w.t.Helper()
	w.f.faults(nil)
	err := w.m.Close()
	w.leave()
	time.Sleep(time.Second) // the server says that a session rests a little before it does
	for _, id := range w.f.running() {
		require.Equal(w.t, w.parent.id, id, "a child's turn goes on behind everybody's back")
	}
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	for _, s := range w.f.order {
		require.True(w.t, s == w.parent || s.deleted || s.turns == 0, "a session with a turn was not released")
	}
	return err
}

// leave ends what listens, and the connections.
func (w *netWorld) leave() {
	w.stop()
	<-w.ran
	w.transport.CloseIdleConnections()
}

// check looks into the books of both sides. twice says that messages may be doubled:
// those of which the client had to believe that they never arrived.
func (w *netWorld) check(twice bool) {
	w.t.Helper()
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	for _, s := range w.f.order {
		if s != w.parent {
			require.LessOrEqual(w.t, s.prompts, 1, "a prompt was sent twice")
			require.LessOrEqual(w.t, s.turns, 1)
			require.Zero(w.t, s.notes)
		}
	}
	w.box.mu.Lock()
	defer w.box.mu.Unlock()
	told := map[subagent.TaskID]int{}
	owed := w.m.Pending(subagent.SessionID(w.parent.id)).Notices // what was parked; it can be drained
	for _, notice := range owed {
		told[notice.Task]++
	}
	for i, n := range w.box.accepted {
		if i == len(w.box.accepted)-1 && len(owed) == 0 {
			require.True(w.t, n.Final)
			require.Zero(w.t, n.Remaining)
		}
		times := w.parent.has(n.ID)
		require.True(w.t, times == 1 || twice && times > 1, "%d times in the transcript", times)
		for _, notice := range n.Notices {
			told[notice.Task]++
		}
	}
	for _, task := range w.m.List(subagent.Filter{}) {
		require.True(w.t, task.Status.Terminal())
		require.Equal(w.t, 1, told[task.ID], "of each task the parent is told once, or will be")
	}
}

// has counts the messages in which the text of a notification is.
func (s *fakeSession) has(id string) (times int) {
	for _, m := range s.msgs {
		if slices.ContainsFunc(m.parts, func(p fields) bool {
			return strings.Contains(fmt.Sprint(p["metadata"]), id) && !strings.Contains(fmt.Sprint(p["text"]), "it stands above")
		}) {
			times++
		}
	}
	return times
}

// ended is a task that has.
func (w *netWorld) ended(id subagent.TaskID) subagent.Task {
	w.t.Helper()
	task, err := w.m.Get(id)
	require.NoError(w.t, err)
	require.True(w.t, task.Status.Terminal())
	return task
}

// said requires that a task has completed with a text.
func (w *netWorld) said(id subagent.TaskID, text string) {
	w.t.Helper()
	task := w.ended(id)
	require.Equal(w.t, subagent.Completed, task.Status, "%v", task.Reason)
	require.Equal(w.t, text, task.Result.Text)
}
