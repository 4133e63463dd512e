package opencode_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/adapters/opencode"
)

// A child is stopped although a call for it fails.
func TestNetCancel(t *testing.T) {
	for _, op := range []string{"abort", "status", "get", "prompt", "messages"} {
		for _, name := range []string{"reset before", "reset after", "500", "200 page", "slow"} {
			for _, script := range []string{"say a; hang", "retry 0", "work 1h; say late"} {
				t.Run(op+"/"+name+"/"+script, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := newFake(t)
						w := newNetWorld(t, f)
						id := w.launch(script)
						time.Sleep(time.Minute)
						before := f.called(op)
						f.faults(func(called string, nth int) fault {
							if called == op && nth == before+1 {
								return httpFaults[name]
							}
							return nil
						})
						_, err := w.m.Cancel(t.Context(), id, subagent.CancelOptions{})
						require.NoError(t, err, "there is time for more than one try")
						require.Equal(t, subagent.Cancelled, w.ended(id).Status)
						time.Sleep(time.Second)
						require.Empty(t, f.running())
						w.settle()
						w.close()
						w.check(false)
					})
				})
			}
		}
	}
}

// A prompt that the network held back until its task was over has no child run behind
// everybody's back: the task says that it may come, and when it does it is stopped.
func TestNetPromptComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.faults(once("prompt", 1, httpFaults["late"]))
		w := newNetWorld(t, f)
		id := w.launch("hang")
		w.settle()
		require.NotEqual(t, subagent.Completed, w.ended(id).Status)
		require.ErrorIs(t, w.ended(id).Attempts[0].Unstopped, subagent.ErrInDoubt)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 1, f.find(string(w.ended(id).Session)).turns, "it has come")
		require.Empty(t, f.running())
		w.close()
		w.check(false)
	})
}

// With Keep it comes after Close too, which says so.
func TestNetPromptComesAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		f.faults(once("prompt", 1, httpFaults["late"]))
		w := newNetWorld(t, f, func(c *opencode.Config) { c.Keep = true })
		w.launch("hang")
		w.settle()
		require.ErrorIs(t, w.m.Close(), subagent.ErrUnstopped)
		w.leave()
		time.Sleep(10 * time.Minute)
		require.NotEmpty(t, f.running())
		f.stop()
	})
}

// Close is bounded whatever the server does, and says what may still run.
func TestNetCloseIsBounded(t *testing.T) {
	for _, name := range []string{"stall for ever", "late headers", "reset before", "500", "garbage", "null"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				w := newNetWorld(t, f)
				for range 3 {
					w.launch("hang")
				}
				time.Sleep(time.Minute)
				f.faults(func(op string, _ int) fault {
					if op == "events" {
						return nil
					}
					return httpFaults[name]
				})
				began := time.Now()
				err := w.m.Close()
				require.Less(t, time.Since(began), 31*time.Second, "two times the grace, and then some")
				if len(f.running()) > 0 {
					require.ErrorIs(t, err, subagent.ErrUnstopped)
				}
				w.leave()
			})
		})
	}
}

// A server that crashes takes its turns with it: they end as interrupted, and what is
// launched afterwards goes well.
func TestNetServerCrashes(t *testing.T) {
	for _, down := range []time.Duration{0, 5 * time.Second, 3 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			w := newNetWorld(t, f)
			lost := w.launch("say a; work 1h")
			time.Sleep(time.Minute)
			f.crash(down)
			_, err := w.m.Wait(t.Context(), lost)
			require.NoError(t, err)
			require.Equal(t, subagent.Interrupted, w.ended(lost).Status)
			found := w.launch("say found")
			w.settle()
			w.close()
			w.said(found, "found")
			w.check(false)
		})
	}
}

// What a turn waits for is seen although the word of it was lost with its stream.
func TestNetPermissionIsSeenAfterGap(t *testing.T) {
	for name, stream := range map[string]streamFault{
		"all is told": nil, "cut often": cutAfter(4), "asked is lost": both(missing("permission.asked"), cutAfter(30)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.streamFaults(always(stream))
				w := newNetWorld(t, f)
				id := w.launch("ask || say thanks")
				time.Sleep(10 * time.Minute)
				task, err := w.m.Get(id)
				require.NoError(t, err)
				require.Equal(t, subagent.InputNeeded, task.Status)
				require.Contains(t, task.Progress.Waiting, "bash")
				v := newVisitor(t, f)
				asked := decode[[]struct{ ID string }](t, v.call(200, "GET", "/permission?directory=/d", ""))
				v.call(200, "POST", "/permission/"+asked[0].ID+"/reply", `{"reply":"once"}`)
				w.settle()
				w.close()
				w.said(id, "thanks")
				w.check(false)
			})
		})
	}
}

// The look for it is made again if it fails.
func TestNetPermissionIsAskedForAgain(t *testing.T) {
	for _, op := range []string{"permissions", "questions"} {
		for _, name := range []string{"503", "late headers", "garbage"} {
			t.Run(op+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.streamFaults(func(nth int) streamFault { return map[bool]streamFault{true: missing("permission.asked")}[nth == 1] })
					f.faults(once(op, 3, httpFaults[name]))
					w := newNetWorld(t, f)
					id := w.launch("ask; say thanks")
					time.Sleep(time.Second)
					synctest.Wait()
					f.net.cut()
					time.Sleep(5 * time.Minute)
					synctest.Wait()
					task, err := w.m.Get(id)
					require.NoError(t, err)
					require.Equal(t, subagent.InputNeeded, task.Status)
					require.Equal(t, 4, f.called(op), "until it works, and not once more")
					_, err = w.m.Cancel(t.Context(), id, subagent.CancelOptions{})
					require.NoError(t, err)
					w.settle()
					w.close()
					w.check(false)
				})
			})
		}
	}
}

// A call beside the stream that does not come back does not keep the stream from being
// read.
func TestNetEventsAreHeardWhileCallsHang(t *testing.T) {
	for _, op := range []string{"permissions", "questions", "status"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(every(op, httpFaults["late headers"]))
				w := newNetWorld(t, f)
				f.streamFaults(func(nth int) streamFault { return map[bool]streamFault{true: cutAfter(20)}[nth == 1] })
				id := w.launch("tool 3m; tool 3m; tool 3m || say done")
				time.Sleep(8 * time.Minute)
				task, err := w.m.Get(id)
				require.NoError(t, err)
				require.Equal(t, 3, task.Progress.ToolCalls)
				f.faults(nil)
				w.settle()
				w.close()
				w.check(false)
			})
		})
	}
}

// A deleted session ends its task, whether that is told or found out.
func TestNetSessionIsDeleted(t *testing.T) {
	for name, stream := range map[string]streamFault{"told": nil, "found out": lying} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.streamFaults(always(stream))
				w := newNetWorld(t, f)
				id := w.launch("work 10m; say late")
				time.Sleep(time.Minute)
				task, err := w.m.Get(id)
				require.NoError(t, err)
				newVisitor(t, f).call(200, "DELETE", "/session/"+string(task.Session), "")
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				task, err = w.m.Wait(ctx, id)
				require.NoError(t, err)
				require.NotEqual(t, subagent.Completed, task.Status)
				w.settle()
				w.close()
				w.check(false)
			})
		})
	}
}

// A server that can't be asked for a while, once it has its prompts, loses nothing: what
// can't be found out ends no turn.
func TestNetOutage(t *testing.T) {
	for _, down := range []time.Duration{10 * time.Second, 70 * time.Second, 10 * time.Minute} {
		for _, name := range []string{"reset before", "503", "late headers", "garbage"} {
			t.Run(name+"/"+down.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.streamFaults(always(lying))
					w := newNetWorld(t, f)
					ids := map[subagent.TaskID]string{}
					for script, text := range goodScripts {
						ids[w.launch(script)] = text
					}
					time.Sleep(20 * time.Millisecond) // the prompts are there, and nothing was heard yet
					f.faults(func(op string, _ int) fault {
						if op == "events" {
							return nil
						}
						return httpFaults[name]
					})
					time.Sleep(down)
					f.faults(nil)
					w.settle()
					w.close()
					for id, text := range ids {
						if w.f.find(string(w.ended(id).Session)) != nil { // else the outage came before it was made
							w.said(id, text)
						}
					}
					w.check(false)
				})
			})
		}
	}
}
