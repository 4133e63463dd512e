package subagent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Scenarios 54, 63 and 65: every way in which a call can fail gives one ending
// of the right kind, a free lease, a child at rest and one notice. L2, L25.
func TestFailuresOfTheClient(t *testing.T) {
	boom := errors.New("boom")
	create := func(id SessionID, err error) func(context.Context, CreateRequest) (SessionID, error) {
		return func(context.Context, CreateRequest) (SessionID, error) { return id, err }
	}
	prompt := func(r Result, err error) func(context.Context, SessionID, Prompt) (Result, error) {
		return func(context.Context, SessionID, Prompt) (Result, error) { return r, err }
	}
	for _, c := range []struct {
		name   string
		client *stub
		status Status
		code   ReasonCode
		aborts int64
	}{
		{"create errs", &stub{create: create("", boom)}, Failed, SessionFailed, 0},
		{"create panics", &stub{create: func(context.Context, CreateRequest) (SessionID, error) { panic(boom) }}, Failed, Panicked, 0},
		{"create returns no id", &stub{create: create("", nil)}, Failed, SessionFailed, 0},
		{"create errs although it created", &stub{create: create("ses_made", &SessionError{Op: "create", Err: boom})}, Failed, SessionFailed, 1},
		{"create returns the parent", &stub{create: create("p", nil)}, Failed, SessionFailed, 0},
		{"prompt errs, untyped", &stub{prompt: prompt(Result{}, boom)}, Interrupted, PromptFailed, 1},
		{"prompt errs, out of reach", &stub{prompt: prompt(Result{}, &SessionError{Op: "prompt", Class: ClassUnavailable, Err: boom})}, Interrupted, PromptFailed, 1},
		{"prompt errs, aborted in the host", &stub{prompt: prompt(Result{}, &SessionError{Op: "prompt", Class: ClassAborted, Err: boom})}, Interrupted, PromptFailed, 0},
		{"prompt errs, typed", &stub{prompt: prompt(Result{}, &SessionError{Op: "prompt", Class: ClassQuota, Err: boom})}, Failed, SessionFailed, 1},
		{"prompt panics", &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { panic(boom) }}, Failed, Panicked, 1},
		{"blank", &stub{prompt: prompt(Result{Text: " \n\t"}, nil)}, Failed, NoOutput, 0},
		{"empty, and the client vouches", &stub{prompt: prompt(Result{Empty: true}, nil)}, Completed, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box := &inbox{}
				m := newManager(t, c.client, Config{Notifier: box, Keys: KeyLimits{Default: 1}})
				task := launch(t, m, work("p"))
				ended, err := m.Wait(t.Context(), task.ID)
				require.NoError(t, err)
				require.Equal(t, c.status, ended.Status)
				if c.code != "" {
					require.ErrorIs(t, ended.Reason, c.code)
				}
				if c.code != NoOutput && c.code != "" && !strings.Contains(c.name, "returns") {
					require.ErrorIs(t, ended.Reason, boom)
				}
				require.Equal(t, c.aborts, c.client.aborts.Load())
				require.Nil(t, ended.Attempts[0].Unstopped)
				require.Empty(t, m.Stats().Keys)
				pass(time.Minute)
				require.Len(t, box.all(), 1)
				require.Len(t, box.all()[0].Notices, 1)
			})
		})
	}
}

// A second task that gets the session of a first one fails and leaves the first alone.
func TestDuplicateSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{prompt: hang, create: func(context.Context, CreateRequest) (SessionID, error) { return "ses_same", nil }}
		m := newManager(t, c, Config{})
		first := launch(t, m, work("p"))
		synctest.Wait()
		second := launch(t, m, work("p"))
		ended, err := m.Wait(t.Context(), second.ID)
		require.NoError(t, err)
		require.ErrorIs(t, ended.Reason, SessionFailed)
		require.Zero(t, c.aborts.Load())
		require.Equal(t, Running, get(t, m, first.ID).Status)
	})
}

// Scenario 48, L8: a create that hangs fails at the start time-out, and a client
// that ignores its context is given up after the grace; what it makes late is
// stopped and released.
func TestCreateHangs(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := &stub{}
			c.create = func(ctx context.Context, req CreateRequest) (SessionID, error) {
				if req.Title() != "slow (@worker)" {
					return c.id(), nil
				}
				if deaf {
					time.Sleep(5 * time.Minute)
					return "ses_late", nil
				}
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			m := newManager(t, c, Config{Keys: KeyLimits{Default: 2}})
			in := work("p")
			in.Description = "slow"
			slow := launch(t, m, in)
			for range 3 {
				done, err := m.Do(t.Context(), work("p"))
				require.NoError(t, err, "the others of the key go on")
				require.Equal(t, Completed, done.Status)
			}
			began := time.Now()
			ended, err := m.Wait(t.Context(), slow.ID)
			require.NoError(t, err)
			require.ErrorIs(t, ended.Reason, StartTimeout)
			require.Equal(t, "TaskLimits.Start", ended.Reason.Setting)
			if !deaf {
				require.Equal(t, time.Minute, time.Since(began))
				require.Nil(t, ended.Attempts[0].Unstopped)
				return
			}
			require.Equal(t, 70*time.Second, time.Since(began))
			require.Error(t, ended.Attempts[0].Unstopped)
			require.Equal(t, 1, m.Stats().Unstopped)
			pass(5 * time.Minute)
			require.EqualValues(t, 1, c.aborts.Load(), "the late session is stopped")
			_, released := c.released.Load(SessionID("ses_late"))
			require.True(t, released)
			require.Zero(t, m.Stats().Unstopped)
			require.Nil(t, get(t, m, slow.ID).Attempts[0].Unstopped)
		})
	}
}

// Scenario C032: cancelled while its session is made, a task is never prompted.
func TestCancelWhileCreating(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{create: func(context.Context, CreateRequest) (SessionID, error) {
			time.Sleep(time.Second) // does not heed its context
			return "ses_1", nil
		}}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		ended, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, Cancelled, ended.Status)
		require.Zero(t, c.prompts.Load())
		require.EqualValues(t, 1, c.aborts.Load())
		synctest.Wait()
		_, released := c.released.Load(SessionID("ses_1"))
		require.True(t, released)
	})
}

// The context of a prompt ends only after its Abort has returned.
func TestAbortComesBeforeTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var aborted, cancelled time.Time
		c := &stub{
			prompt: func(ctx context.Context, _ SessionID, _ Prompt) (Result, error) {
				<-ctx.Done()
				cancelled = time.Now()
				return Result{}, ctx.Err()
			},
			abort: func(context.Context, SessionID) error {
				time.Sleep(time.Second)
				if aborted.IsZero() {
					aborted = time.Now()
				}
				return nil
			},
		}
		m := newManager(t, c, Config{})
		task := launch(t, m, work("p"))
		synctest.Wait()
		began := time.Now()
		_, err := m.Cancel(t.Context(), task.ID, CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, began.Add(time.Second), aborted)
		require.Equal(t, aborted, cancelled)
	})
}

// A lease is held until the child is known to be at rest: a turn that errs while
// its abort goes on does not let the next one in.
func TestLeaseIsHeldUntilAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &stub{
			prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{}, errors.New("cut") },
			abort:  func(context.Context, SessionID) error { time.Sleep(time.Second); return nil },
		}
		m := newManager(t, c, Config{Keys: KeyLimits{Default: 1}})
		first := launch(t, m, work("p"))
		second := launch(t, m, work("p"))
		synctest.Wait()
		require.Equal(t, Stopping, get(t, m, first.ID).Status)
		require.Equal(t, Pending, get(t, m, second.ID).Status)
		pass(time.Second)
		synctest.Wait()
		require.Equal(t, Interrupted, get(t, m, first.ID).Status)
		require.Equal(t, Stopping, get(t, m, second.ID).Status)
	})
}

// The result stays on the record, cut to its bound and marked.
func TestResultIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("é", 1000)
		m := newManager(t, Func(func(context.Context, Turn) (Result, error) { return Result{Text: text}, nil }),
			Config{Task: TaskLimits{ResultBytes: 101}})
		done, err := m.Do(t.Context(), work("p"))
		require.NoError(t, err)
		require.Equal(t, strings.Repeat("é", 50), done.Result.Text)
		require.True(t, done.Result.Cut())
		require.Equal(t, 2000, done.Result.Size)
		in := work("p")
		in.Limits = &TaskLimits{ResultBytes: Off}
		done, err = m.Do(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, text, done.Result.Text)
		require.False(t, done.Result.Cut())
	})
}

// A text that is not UTF-8, as the output of a tool may be, is cut at its bound.
func TestResultOfRawBytesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := strings.Repeat("\x80", 2000)
		m := newManager(t, &stub{prompt: func(context.Context, SessionID, Prompt) (Result, error) { return Result{Text: text}, nil }},
			Config{Task: TaskLimits{ResultBytes: 1000}})
		done, err := m.Do(t.Context(), work("p"))
		require.NoError(t, err)
		require.Equal(t, text[:1000], done.Result.Text)
		require.Equal(t, 2000, done.Result.Size)
	})
}

// Scenarios 8 and 9: each field reaches the client in its own place.
func TestRequestsCarryEveryField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var req CreateRequest
		var got Prompt
		c := &stub{}
		c.create = func(_ context.Context, r CreateRequest) (SessionID, error) { req = r; return c.id(), nil }
		c.prompt = func(_ context.Context, _ SessionID, p Prompt) (Result, error) { got = p; return Result{Text: "x"}, nil }
		m := newManager(t, c, Config{Tools: map[string]bool{"shell": false}})
		done, err := m.Do(t.Context(), LaunchInput{
			Parent: "p", Agent: "a", Prompt: "text", Description: "what", Model: "prov/model", Variant: "high",
			System: "extra", Dir: "/tmp", Tools: map[string]bool{"read": true, "shell": true}, Labels: map[string]string{"category": "x"},
		})
		require.NoError(t, err)
		tools := map[string]bool{"read": true, "shell": false}
		require.Equal(t, CreateRequest{
			Task: done.ID, Attempt: 1, Parent: "p", Agent: "a", Model: "prov/model", Variant: "high", Description: "what",
			Dir: "/tmp", System: "extra", Tools: tools, Labels: map[string]string{"category": "x"},
		}, req)
		require.NotNil(t, got.OnEvent)
		got.OnEvent = nil
		require.Equal(t, Prompt{
			Task: done.ID, Attempt: 1, Text: "text", Agent: "a", Model: "prov/model", Variant: "high", System: "extra", Tools: tools,
		}, got)
	})
}
