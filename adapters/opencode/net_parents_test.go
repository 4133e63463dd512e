package opencode_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// user sends a prompt as a user does who has changed the agent, with the fake locked.
func (s *fakeSession) user(text string) {
	s.prompts++
	s.store("", fields{"agent": "plan", "model": fields{"providerID": "fake", "modelID": "other"}, "parts": []any{fields{"type": "text", "text": text}}})
	if s.halt == nil {
		s.begin(false)
	}
}

// quicker has a user prompt a session just before the next call of the client that writes
// into it arrives.
func (w *netWorld) quicker(text string) {
	before := w.f.called("prompt")
	w.f.faults(func(op string, nth int) fault {
		if op != "prompt" || nth != before+1 {
			return nil
		}
		return func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			w.f.mu.Lock()
			w.parent.user(text)
			w.f.mu.Unlock()
			next.ServeHTTP(rw, r)
		}
	})
}

func (w *netWorld) notify(n subagent.Notification) subagent.Delivery {
	w.t.Helper()
	n.Parent = subagent.SessionID(w.parent.id)
	d, err := w.oc.Notify(w.t.Context(), n)
	require.NoError(w.t, err)
	return d
}

// A user who prompts the parent in the moment in which it is told: the notification joins
// that turn, and leaves the parent the agent and model that the user has chosen.
func TestNetNotifyRacesTheUser(t *testing.T) {
	for _, n := range []subagent.Notification{
		{ID: "nt_1", Text: "told", Wake: true},
		{ID: "nt_1", Text: "told"},
		{ID: "nt_1", Text: "told", Handover: subagent.HandDeposit},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			w := newNetWorld(t, f)
			newVisitor(t, f).prompt(w.parent.id, "hello")
			time.Sleep(time.Second)
			synctest.Wait()
			w.quicker("and now plan")
			require.Equal(t, subagent.Accepted, w.notify(n))
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, 2, w.parent.turns, "the user's, and none more")
			for i, m := range w.parent.msgs {
				if m.isUser() && i > 0 {
					require.Equal(t, "plan", m.info["agent"])
					require.Equal(t, "other", m.info["model"].(fields)["modelID"])
				}
			}
			require.Equal(t, 1, w.parent.has("nt_1"))
			w.leave()
		})
	}
}

// And one who does so in the moment in which the parent is to be woken: what asks for the
// turn joins the user's, as the user has it.
func TestNetWakeRacesTheUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		require.Equal(t, subagent.Accepted, w.notify(subagent.Notification{ID: "nt_1", Text: "told", Handover: subagent.HandDeposit}))
		require.Zero(t, w.parent.turns)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.quicker("SCRIPT: work 1m; say done")
		wake := subagent.Notification{ID: "nt_1", Text: "told", Handover: subagent.HandWake, Wake: true}
		require.Equal(t, subagent.Accepted, w.notify(wake))
		require.Equal(t, subagent.Busy, w.notify(wake))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, subagent.Accepted, w.notify(wake), "once more is no harm")
		require.Equal(t, 1, w.parent.turns)
		require.Equal(t, 1, w.parent.has("nt_1"))
		require.Len(t, w.parent.msgs, 4, "the notification, the user, what asks for a turn, and an answer to all")
		require.True(t, w.parent.msgs[2].isUser())
		require.Equal(t, "plan", w.parent.msgs[2].info["agent"])
		w.leave()
	})
}

// What is there, and whether its turn was had, is known after any number of steps; a wake
// of what is there no more writes it.
func TestNetReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		received := func(n subagent.Notification) bool {
			n.Parent = subagent.SessionID(w.parent.id)
			there, err := w.oc.Received(t.Context(), n)
			require.NoError(t, err)
			return there
		}
		deposit := subagent.Notification{ID: "nt_1", Text: "told", Handover: subagent.HandDeposit}
		offer := subagent.Notification{ID: "nt_1", Text: "told", Wake: true}
		require.False(t, received(deposit))
		require.Equal(t, subagent.Accepted, w.notify(deposit))
		for range 50 {
			require.Equal(t, subagent.Accepted, w.notify(subagent.Notification{ID: "nt_x" + time.Now().String(), Text: "x", Handover: subagent.HandDeposit}))
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		require.True(t, received(deposit))
		require.False(t, received(offer), "it asked for a turn, and has had none")
		require.Equal(t, subagent.Accepted, w.notify(offer), "after its reply was lost, say")
		require.True(t, received(offer), "the turn goes on")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.True(t, received(offer))
		require.Equal(t, 1, w.parent.turns)
		wake := subagent.Notification{ID: "nt_2", Text: "told again", Handover: subagent.HandWake, Wake: true}
		require.Equal(t, subagent.Accepted, w.notify(wake))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, w.parent.turns)
		require.Equal(t, 1, w.parent.has("nt_2"))

		// A turn that was stopped when it had come to the notification has not had it.
		v := newVisitor(t, f)
		deposit.ID, wake.ID, deposit.Text = "nt_3", "nt_3", "SCRIPT: work 1h"
		v.prompt(w.parent.id, "SCRIPT: work 1m; say on")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, subagent.Accepted, w.notify(deposit))
		require.Equal(t, subagent.Busy, w.notify(wake))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, subagent.Busy, w.notify(wake))
		v.call(200, "POST", "/session/"+w.parent.id+"/abort?directory=/d", "")
		time.Sleep(time.Second)
		synctest.Wait()
		require.False(t, received(wake))
		for range 50 {
			require.Equal(t, subagent.Accepted, w.notify(subagent.Notification{ID: "nt_y" + time.Now().String(), Text: "y", Handover: subagent.HandDeposit}))
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		require.Equal(t, 3, w.parent.turns)
		require.Equal(t, subagent.Accepted, w.notify(wake))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 4, w.parent.turns)
		require.Equal(t, 1, w.parent.has("nt_3"))
		require.True(t, received(wake))
		there, err := w.oc.Received(t.Context(), subagent.Notification{ID: "nt_1", Parent: "ses_none"})
		require.NoError(t, err)
		require.False(t, there)
		there, err = w.oc.Received(t.Context(), subagent.Notification{ID: "nt_1", Parent: "chat-7"})
		require.NoError(t, err)
		require.False(t, there)
		w.leave()
	})
}

// A session that a user has made and prompted becomes a task, with what it does from then
// on, and ends with the answer to that prompt.
func TestNetTracked(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			w := newNetWorld(t, f)
			v := newVisitor(t, f)
			id := v.create(`{}`)
			v.prompt(id, "SCRIPT: say old")
			time.Sleep(time.Second)
			synctest.Wait()
			v.call(204, "POST", "/session/"+id+"/prompt_async", `{"noReply":true,"parts":[{"type":"text","text":"x","metadata":{"subagent":{"notification":"nt_1"}}}]}`)
			v.prompt(id, "SCRIPT: work 5s; tool 1s || tool 5s || say new")
			time.Sleep(map[bool]time.Duration{false: time.Second, true: time.Minute}[late])
			synctest.Wait()
			v.call(204, "POST", "/session/"+id+"/prompt_async", `{"noReply":true,"parts":[{"type":"text","text":"x","metadata":{"subagent":{"steer":true}}}]}`)
			v.call(204, "POST", "/session/"+id+"/prompt_async", `{"noReply":true,"parts":[{"type":"text","text":"x","metadata":{"subagent":{"notification":"nt_2"}}}]}`)
			began := time.Now()
			task, err := w.m.Track(t.Context(), subagent.TrackInput{Session: subagent.SessionID(id), Parent: subagent.SessionID(w.parent.id), Agent: "build"})
			require.NoError(t, err)
			w.settle()
			w.said(task.ID, "new")
			ended := w.ended(task.ID)
			if late {
				require.Less(t, ended.Ended.Sub(began), time.Second)
			} else {
				require.Equal(t, 2, ended.Progress.ToolCalls)
				require.Less(t, ended.Ended.Sub(began), 12*time.Second)
			}
			again, err := w.m.Resume(t.Context(), task.ID, subagent.ResumeInput{Prompt: "SCRIPT: say third"})
			require.NoError(t, err)
			w.settle()
			w.said(again.ID, "third")
			require.NoError(t, w.m.Close())
			w.leave()
			require.False(t, f.find(id).deleted, "it is not ours")
		})
	}
}

// Once its task is over, who stops a later turn of it is told of as for any parent.
func TestNetTrackedIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		v := newVisitor(t, f)
		m, err := subagent.New(w.oc, subagent.Config{Interrupted: subagent.InterruptedStopAll})
		require.NoError(t, err)
		defer m.Close()
		go func() { _ = w.oc.Run(t.Context(), m.HandleEvent) }()
		id := subagent.SessionID(v.create(`{}`))
		v.prompt(string(id), "SCRIPT: work 5s; say theirs")
		time.Sleep(time.Second)
		task, err := m.Track(t.Context(), subagent.TrackInput{Session: id, Parent: subagent.SessionID(w.parent.id), Agent: "build"})
		require.NoError(t, err)
		task, err = m.Wait(t.Context(), task.ID)
		require.NoError(t, err)
		require.Equal(t, "theirs", task.Result.Text)
		below, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: id, Agent: "build", Prompt: "SCRIPT: work 1h"})
		require.NoError(t, err)
		v.prompt(string(id), "SCRIPT: work 1h")
		time.Sleep(time.Second)
		v.call(200, "POST", "/session/"+string(id)+"/abort?directory=/d", "")
		time.Sleep(time.Minute)
		synctest.Wait()
		below, err = m.Get(below.ID)
		require.NoError(t, err)
		require.ErrorIs(t, below.Reason, subagent.ByUser)
		w.leave()
	})
}

// One that waited for a permission before it was tracked is shown as that.
func TestNetTrackedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		v := newVisitor(t, f)
		id := v.create(`{}`)
		v.prompt(id, "SCRIPT: ask || say new")
		time.Sleep(time.Hour)
		synctest.Wait()
		task, err := w.m.Track(t.Context(), subagent.TrackInput{Session: subagent.SessionID(id), Parent: subagent.SessionID(w.parent.id), Agent: "build"})
		require.NoError(t, err)
		time.Sleep(heartbeat + time.Second)
		synctest.Wait()
		task, err = w.m.Get(task.ID)
		require.NoError(t, err)
		require.Equal(t, subagent.InputNeeded, task.Status)
		asked := decode[[]struct{ ID string }](t, v.call(200, "GET", "/permission?directory=/d", ""))
		v.call(200, "POST", "/permission/"+asked[0].ID+"/reply", `{"reply":"once"}`)
		w.settle()
		w.said(task.ID, "new")
		require.NoError(t, w.m.Close())
		w.leave()
	})
}

// A user who stops a parent's turn is told of as that; our own stopping of a child is not,
// nor that of a session that rests.
func TestNetInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		v := newVisitor(t, f)
		m, err := subagent.New(w.oc, subagent.Config{Interrupted: subagent.InterruptedStopAll})
		require.NoError(t, err)
		defer m.Close()
		go func() { _ = w.oc.Run(t.Context(), m.HandleEvent) }()
		start := func() subagent.TaskID {
			task, err := m.Launch(t.Context(), subagent.LaunchInput{Parent: subagent.SessionID(w.parent.id), Agent: "build", Prompt: "SCRIPT: work 1h; say done"})
			require.NoError(t, err)
			return task.ID
		}
		one, two := start(), start()
		time.Sleep(time.Second)
		synctest.Wait()
		_, err = m.Cancel(t.Context(), one, subagent.CancelOptions{Cause: subagent.ByParent})
		require.NoError(t, err)
		v.call(200, "POST", "/session/"+w.parent.id+"/abort?directory=/d", "")
		time.Sleep(time.Minute)
		synctest.Wait()
		now, err := m.Get(two)
		require.NoError(t, err)
		require.Equal(t, subagent.Running, now.Status)
		v.prompt(w.parent.id, "SCRIPT: work 1h")
		time.Sleep(time.Second)
		synctest.Wait()
		v.call(200, "POST", "/session/"+w.parent.id+"/abort?directory=/d", "")
		time.Sleep(time.Minute)
		synctest.Wait()
		now, err = m.Get(two)
		require.NoError(t, err)
		require.ErrorIs(t, now.Reason, subagent.ByUser)
		w.leave()
	})
}
