package subagenttest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// loop is an agent loop with the prompts of a Subject. It knows where it is at work.
type loop struct {
	mu   sync.Mutex
	busy map[subagent.SessionID]bool
}

func (l *loop) set(id subagent.SessionID, busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy == nil {
		l.busy = map[subagent.SessionID]bool{}
	}
	l.busy[id] = busy
}

func (l *loop) working(id subagent.SessionID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy[id]
}

func (l *loop) run(ctx context.Context, turn subagent.Turn) (subagent.Result, error) {
	l.set(turn.Session, true)
	defer l.set(turn.Session, false)
	switch turn.Text {
	case "long":
		<-ctx.Done()
		return subagent.Result{}, ctx.Err()
	case "fail":
		return subagent.Result{}, errors.New("failed as asked")
	case "blank":
		return subagent.Result{Empty: true}, nil
	}
	return subagent.Result{Text: "quick"}, nil
}

func subject(c subagent.SessionClient) Subject {
	return Subject{
		Client: c, Request: subagent.CreateRequest{Task: "bg_1", Attempt: 1, Parent: "parent"},
		Quick: "quick", Long: "long", Fail: "fail", Blank: "blank", Settle: 3 * time.Second,
	}
}

func TestFuncConforms(t *testing.T) {
	for name, sees := range map[string]bool{"by its calls": false, "by its work": true} {
		t.Run(name, func(t *testing.T) {
			TestClient(t, func(*testing.T) Subject {
				var l loop
				s := subject(subagent.Func(l.run))
				if sees {
					s.Working = l.working
				}
				return s
			})
		})
	}
}

// unknowing keeps the fake from judging the suite, which is no manager.
type unknowing struct{ testing.TB }

func (unknowing) Errorf(string, ...any) {}

// obedient is a fake with the prompts of a Subject.
func obedient(t testing.TB) (*Client, Subject) {
	c := NewClient(unknowing{t}, func(c Call) Action {
		if c.Op != OpPrompt {
			return Action{}
		}
		return map[string]Action{
			"long":  {Hang: true},
			"fail":  {Err: fault(OpPrompt, c.Session, subagent.ClassQuota, errors.New("failed as asked"))},
			"blank": {Empty: true},
		}[c.Prompt.Text]
	})
	s := subject(c)
	s.Working = func(id subagent.SessionID) bool {
		for _, state := range c.Sessions() {
			if state.ID == id {
				return state.Running
			}
		}
		return false
	}
	return c, s
}

func TestFakeConforms(t *testing.T) {
	TestClient(t, func(t *testing.T) Subject {
		_, s := obedient(t)
		return s
	})
}

// What the host shows is not needed for a client to pass.
func TestFakeConformsBlind(t *testing.T) {
	for _, rule := range clientRules {
		synctest.Test(t, func(t *testing.T) {
			_, s := obedient(t)
			s.Working = nil
			if err := rule.check(t.Context(), s); !slices.Contains([]string{"steer at rest", "lineage"}, rule.name) {
				require.NoError(t, err, rule.name)
			} else {
				require.ErrorIs(t, err, errAbsent, rule.name)
			}
		})
	}
}

// A subject that the suite can't use is refused in words that name the field.
func TestSubjectIsChecked(t *testing.T) {
	_, good := obedient(t)
	require.NoError(t, good.check())
	for field, spoil := range map[string]func(*Subject){
		"Subject.Client": func(s *Subject) { s.Client = nil },
		"Subject.Quick":  func(s *Subject) { s.Quick = "" },
		"Subject.Long":   func(s *Subject) { s.Long = " " },
	} {
		s := good
		spoil(&s)
		require.ErrorContains(t, s.check(), field+" is empty")
	}
}

// A case that is skipped says what there is not.
func TestSuiteSaysWhatIsAbsent(t *testing.T) {
	type bare struct{ subagent.SessionClient }
	good, s := obedient(t)
	unsupported := &broken{Client: good, release: func(ctxOf, idOf) error { return errors.ErrUnsupported }}
	for name, says := range map[string][2]string{
		"failed turn":   {"Subject.Fail is empty", "Subject.Fail is empty"},
		"blank turn":    {"Subject.Blank is empty", "Subject.Blank is empty"},
		"release":       {"the client is no subagent.Releaser", "Release is errors.ErrUnsupported"},
		"steer at rest": {"the client is no subagent.Steerer", "Steer is errors.ErrUnsupported"},
		"transcript":    {"the client is no subagent.TranscriptReader", "Transcript is errors.ErrUnsupported"},
		"lineage":       {"the client is no subagent.LineageResolver", "ParentOf is errors.ErrUnsupported"},
	} {
		for i, client := range []subagent.SessionClient{bare{good}, unsupported} {
			s.Client, s.Fail, s.Blank = client, "", ""
			for _, rule := range clientRules {
				if rule.name == name {
					err := rule.check(t.Context(), s)
					require.ErrorIs(t, err, errAbsent)
					require.EqualError(t, err, "not checked: "+says[i])
				}
			}
		}
	}
}

// A client that panics or hangs is reported as well, and never taken for one that
// returns an error as it should.
func TestSuiteSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := obedient(t)
		_, err := call(s.Settle, "Prompt", func() (int, error) { panic("boom") })
		require.ErrorContains(t, err, "Prompt: it panicked: boom")
		require.Error(t, refused(err, ""))
		_, err = call(s.Settle, "Prompt", func() (int, error) { <-c.let; return 0, nil })
		require.EqualError(t, err, "Prompt has not returned within 3s")
		require.Error(t, refused(err, ""))
		require.EqualError(t, refused(nil, "it was taken"), "it was taken")
		require.NoError(t, refused(errors.New("no"), ""))
	})
}

// A host whose turns have a message for each step, two of them with words, keeps the
// contract.
func TestTranscriptOfSteps(t *testing.T) {
	var all []subagent.Message
	for range 2 {
		for _, m := range []subagent.Message{
			{Role: subagent.RoleUser, Text: "quick"},
			{Role: subagent.RoleAssistant, Text: "I look"},
			{Role: subagent.RoleAssistant, Text: "done"},
		} {
			m.ID, m.Complete = strconv.Itoa(len(all)), true
			all = append(all, m)
		}
	}
	require.NoError(t, whole(all, "quick"))
}
