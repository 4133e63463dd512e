package subagent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// erratic is a host that does not wait, and whose word can't be relied on: events are
// lost, late, double or of an earlier turn, statuses fail or leave sessions out, errors
// of Send leave it open what happened. What really goes on it knows.
type erratic struct {
	tell func(SessionEvent)

	mu    sync.Mutex
	r     *rand.Rand
	odds  float64 // that something goes wrong
	down  bool    // nothing goes right: nobody reaches the host, which works on
	n     int
	turns map[SessionID]*erraticTurn
}

type erraticTurn struct {
	sends   int
	taken   bool
	theirs  bool // somebody else's prompt, which comes when it comes
	running bool
	final   bool // the last message is complete
	stopped bool
	text    string
	err     error
	left    int // statuses in a row that left it out
	stop    chan struct{}
}

func (h *erratic) bad() bool { return h.down || h.r.Float64() < h.odds }

func (h *erratic) while(most time.Duration) time.Duration {
	return time.Duration(h.r.Int64N(int64(most)))
}

func (h *erratic) Create(context.Context, CreateRequest) (SessionID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	id := SessionID(fmt.Sprint("ses_", h.n))
	h.turns[id] = &erraticTurn{stop: make(chan struct{})}
	return id, nil
}

func (h *erratic) Send(_ context.Context, id SessionID, _ Prompt) (any, error) {
	h.mu.Lock()
	turn := h.turns[id]
	turn.sends++
	wait, unsure, lost := h.while(2*time.Second), h.bad(), h.bad()
	turn.taken = !(unsure && lost)
	h.mu.Unlock()
	time.Sleep(wait)
	if turn.taken {
		h.change(func() { turn.running = true })
		go h.run(id, turn)
	}
	if unsure {
		return turn, errors.New("the line was cut")
	}
	return turn, nil
}

// run is a turn: text and tools for a while, and then its end, of which the session's
// status knows a little before its last message does.
func (h *erratic) run(id SessionID, turn *erraticTurn) {
	h.mu.Lock()
	steps, pause, late, fails := 1+h.r.IntN(4), h.while(4*time.Second), h.while(300*time.Millisecond), h.r.IntN(6) == 0
	h.mu.Unlock()
	h.event(SessionEvent{Session: id, Kind: EventBusy})
	for i := range steps {
		select {
		case <-time.After(pause):
		case <-turn.stop:
			steps = 0
		}
		if steps == 0 {
			break
		}
		h.change(func() { turn.text += fmt.Sprint("step ", i, "; ") })
		h.event(SessionEvent{Session: id, Kind: EventText})
	}
	h.change(func() { turn.running = false })
	h.event(SessionEvent{Session: id, Kind: EventIdle})
	time.Sleep(late)
	h.change(func() {
		turn.final = true
		switch {
		case turn.stopped:
			turn.err = &SessionError{Op: "prompt", Class: ClassAborted}
		case fails:
			turn.err = &SessionError{Op: "prompt", Class: ClassQuota, Err: errors.New("spent")}
		}
	})
	h.event(SessionEvent{Session: id, Kind: EventIdle})
}

func (h *erratic) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// event tells of something: not at all, late, or twice, with an idling that is not so.
func (h *erratic) event(e SessionEvent) {
	h.mu.Lock()
	lost, twice, lie, late := h.bad(), h.bad(), h.bad(), time.Duration(0)
	if h.bad() {
		late = h.while(3 * time.Second)
	}
	h.mu.Unlock()
	go func() {
		time.Sleep(late)
		if !lost {
			h.tell(e)
		}
		if twice {
			h.tell(e)
		}
		if lie {
			h.tell(SessionEvent{Session: e.Session, Kind: EventIdle})
		}
	}()
}

func (h *erratic) Abort(_ context.Context, id SessionID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad() {
		return errors.New("no route")
	}
	if turn := h.turns[id]; turn.running && !turn.stopped {
		turn.stopped = true
		close(turn.stop)
	}
	return nil
}

func (h *erratic) Statuses(context.Context, []SessionID) (map[SessionID]HostStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad() {
		return nil, errors.New("no route")
	}
	all := map[SessionID]HostStatus{}
	for id, turn := range h.turns {
		switch {
		case turn.running && turn.left < 2 && h.bad():
			turn.left++
		case turn.running:
			turn.left, all[id] = 0, HostBusy
		case h.r.IntN(2) == 0:
			all[id] = HostIdle
		}
	}
	return all, nil
}

func (h *erratic) Output(_ context.Context, _ SessionID, mark any) (Answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad() {
		return Answer{}, errors.New("no route")
	}
	turn := mark.(*erraticTurn)
	return Answer{Text: turn.text, Evidence: turn.text != "", Unfinished: !turn.final, Err: turn.err}, nil
}

func (h *erratic) Exists(context.Context, SessionID) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bad() {
		return false, errors.New("no route")
	}
	return true, nil
}

// LastPrompt knows of a prompt of others once it runs.
func (h *erratic) LastPrompt(_ context.Context, id SessionID) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	turn := h.turns[id]
	switch {
	case h.bad():
		return nil, errors.New("no route")
	case turn.running || turn.text != "" || turn.final:
		return turn, nil
	}
	return nil, nil
}

// theirs is a session that somebody else makes, and prompts after a while.
func (h *erratic) theirs() SessionID {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	id, turn := SessionID(fmt.Sprint("ses_", h.n)), &erraticTurn{sends: 1, taken: true, theirs: true, stop: make(chan struct{})}
	h.turns[id] = turn
	wait := h.while(10 * time.Second)
	go func() {
		time.Sleep(wait)
		h.change(func() { turn.running = true })
		h.run(id, turn)
	}()
	return id
}

// delegate launches a task, or tracks a session of somebody else, which may have answered
// by then.
func (h *erratic) delegate(t *testing.T, m *BackgroundManager, r *rand.Rand) TaskID {
	if r.IntN(3) > 0 {
		return launch(t, m, work("p")).ID
	}
	id := h.theirs()
	pass(time.Duration(r.Int64N(int64(20 * time.Second))))
	return track(t, m, "p", id).ID
}

// Over hosts whose word can't be relied on, no turn is taken for over before it is, none
// is waited for without end once the host answers, nothing is sent twice, and what was
// cancelled does not run.
func TestBlockingStorm(t *testing.T) {
	seeds := flag.Lookup("storm.seeds").Value.(flag.Getter).Get().(int) // TestStorm's, in the other package
	ends := map[Status]int{}
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { blockingStorm(t, seed, ends) })
		})
		if t.Failed() {
			return
		}
	}
	for s := Completed; s < numStatuses; s++ {
		require.Greater(t, ends[s], seeds/30, "%s: it shows too little", s)
	}
}

func blockingStorm(t *testing.T, seed uint64, ends map[Status]int) {
	r := rand.New(rand.NewPCG(seed, 1)) // the host has its own, under its lock
	h := &erratic{r: rand.New(rand.NewPCG(seed, 2)), odds: []float64{0, 0.1, 0.3, 0.5}[r.IntN(4)], turns: map[SessionID]*erraticTurn{}}
	m := newManager(t, Blocking(h, BlockingConfig{}), Config{Keys: KeyLimits{Default: 4}})
	h.tell = m.HandleEvent
	var tasks []TaskID
	cancelled := map[TaskID]bool{}
	for range 1 + r.IntN(6) {
		tasks = append(tasks, h.delegate(t, m, r))
		pass(time.Duration(r.Int64N(int64(5 * time.Second))))
		if r.IntN(4) == 0 {
			id := tasks[r.IntN(len(tasks))]
			if _, err := m.Cancel(t.Context(), id, CancelOptions{}); err == nil {
				cancelled[id] = true
				h.atRest(t, get(t, m, id))
			}
		}
	}
	if r.IntN(4) == 0 { // longer than a turn may go without a sign of life, or not so long
		h.change(func() { h.down = true })
		pass(time.Duration(r.Int64N(int64(3 * time.Minute))))
		h.change(func() { h.down = false })
	}
	pass(time.Duration(r.Int64N(int64(30 * time.Second))))
	for _, id := range tasks {
		h.agrees(t, get(t, m, id))
	}
	h.change(func() { h.odds = 0 })
	pass(5 * time.Minute)
	for _, id := range tasks {
		task := get(t, m, id)
		require.True(t, task.Status.Terminal(), "task %s is %s: %+v", id, task.Status, task.Progress)
		require.False(t, cancelled[id] && task.Status != Cancelled)
		ends[task.Status]++
		h.agrees(t, task)
	}
}

// atRest: a cancel that says that the child is at rest is right.
func (h *erratic) atRest(t *testing.T, task Task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if turn := h.turns[task.Session]; turn != nil && !turn.theirs {
		require.False(t, turn.running && task.Attempts[0].Unstopped == nil, "task %s was cancelled, and its turn goes on: %+v; %+v", task.ID, turn, task)
	}
}

// agrees: what the manager says of a task is what the host knows.
func (h *erratic) agrees(t *testing.T, task Task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	turns := maps.Clone(h.turns)
	turn := turns[task.Session]
	if turn == nil {
		return
	}
	require.LessOrEqual(t, turn.sends, 1)
	switch {
	case task.Status == Completed:
		require.True(t, turn.final && turn.err == nil, "task %s completed: %+v", task.ID, turn)
		require.Equal(t, turn.text, task.Result.Text)
	case task.Reason.is(SessionFailed):
		require.True(t, turn.final && turn.err != nil, "task %s failed with %v: %+v", task.ID, task.Reason, turn)
	case task.Reason.is(PromptFailed):
		require.False(t, turn.taken && turn.final && turn.err == nil && h.odds == 0, "task %s is %v: %+v", task.ID, task.Reason, turn)
	case task.Reason.is(NoOutput):
		require.Empty(t, turn.text)
	}
}
