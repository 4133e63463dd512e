package opencode_test

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed-48fd9ae4/subagent"
)

// Calls that only ask may go wrong in any way, for a while: turns end as they do on
// the server, and everybody is told.
func TestNetReadsFail(t *testing.T) {
	for _, op := range []string{"get", "status", "messages", "permissions", "questions", "children", "todo"} {
		for _, name := range sortedNames(httpFaults) {
			if op == "messages" && httpHuge[name] {
				continue // TestNetAnswerIsTooLarge
			}
			t.Run(op+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.faults(once(op, 4, httpFaults[name]))
					newNetWorld(t, f).goWell()
				})
			})
		}
	}
}

// httpHuge are the faults after which a reply can't be read however often it is asked
// for.
var httpHuge = map[string]bool{"endless": true, "endless list": true}

// An answer that is too large to be read fails its task, which does not go on.
func TestNetAnswerIsTooLarge(t *testing.T) {
	for name := range httpHuge {
		for _, stream := range []streamFault{nil, stale} {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(every("messages", httpFaults[name]))
				f.streamFaults(always(stream))
				w := newNetWorld(t, f)
				id := w.launch("work 1h; say hello")
				_, err := w.m.Wait(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, subagent.Failed, w.ended(id).Status)
				time.Sleep(time.Second) // the server says that a session rests a little before it does
				require.Empty(t, f.running())
				f.faults(nil)
				w.settle()
				w.close()
				w.check(false)
			})
		}
	}
}

// Large replies that stall, or nearly so, keep no other from being read for long.
func TestNetStalledRepliesHoldUpNoOther(t *testing.T) {
	for _, c := range []struct {
		n, size int
		fault   fault
	}{
		{1, 3 << 20, httpFaults["stall for ever"]}, {3, 5 << 18, httpFaults["stall for ever"]},
		{1, 2<<20 + 2<<12, httpFaults["stall for ever"]}, // as soon as it is large
		{3, 3 << 20, httpFaults["stall for ever"]}, {3, 3 << 20, trickling},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.streamFaults(always(lying))
			w := newNetWorld(t, f)
			word := strings.Repeat("x", c.size)
			stalls := map[string]bool{}
			for range c.n {
				id := w.launch("work 5s; say " + word)
				time.Sleep(time.Second)
				task, err := w.m.Get(id)
				require.NoError(t, err)
				stalls["/session/"+string(task.Session)+"/message"] = true
			}
			f.faults(every("messages", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if stalls[r.URL.Path] {
					c.fault(w, r, next)
					return
				}
				next.ServeHTTP(w, r)
			}))
			id := w.launch("work 5s; say " + word)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			task, err := w.m.Wait(ctx, id)
			require.NoError(t, err, "%d of %d bytes", c.n, c.size)
			require.Equal(t, subagent.Completed, task.Status, "%v", task.Reason)
			f.faults(nil)
			w.settle()
			w.close()
			w.check(false)
		})
	}
}

// trickling has an answer go on, after its first half, so slowly that it has no end.
func trickling(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answered(r, next)
	body := rec.Body.Bytes()
	half := len(body) / 2
	beginReply(w, rec, body[:half])
	for ; half < len(body) && pause(r.Context(), time.Second); half++ {
		_, _ = w.Write(body[half : half+1])
		_ = http.NewResponseController(w).Flush()
	}
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// A session that was made although the reply was lost is found and given up; without
// one nothing was lost. Either way the task ends at once, or goes on.
func TestNetCreateFails(t *testing.T) {
	goesOn := map[string]bool{"slow": true, "dripping": true, "dripping slowly": true}
	for _, name := range sortedNames(httpFaults) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(once("create", 1, httpFaults[name]))
				w := newNetWorld(t, f)
				id := w.launch("say hello")
				w.settle()
				time.Sleep(10 * time.Minute) // and a call that was late arrives
				if goesOn[name] {
					w.said(id, "hello")
				} else {
					require.Equal(t, subagent.Failed, w.ended(id).Status)
				}
				w.close()
				w.check(false)
			})
		})
	}
}

// A prompt whose reply is lost is looked for, and never sent again.
func TestNetPromptFails(t *testing.T) {
	arrives := map[string]bool{
		"reset after": true, "reset in body": true, "stall in body": true, "stall for ever": true, "slow": true,
		"late headers": true, "dripping": true, "dripping slowly": true, "500 and done": true, "done and endless": true,
	}
	faults := maps.Clone(httpFaults)
	faults["done and endless"] = afterAll(httpFaults["endless"])
	for _, name := range sortedNames(faults) {
		for _, script := range []string{"say hello", "work 3m; say hello"} {
			t.Run(name+"/"+script, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.faults(once("prompt", 1, faults[name]))
					w := newNetWorld(t, f)
					id := w.launch(script)
					w.settle()
					if arrives[name] {
						w.said(id, "hello")
					} else {
						require.NotEqual(t, subagent.Completed, w.ended(id).Status)
						require.Empty(t, f.running(), "no turn goes on of a task that has ended")
					}
					w.close()
					w.check(false)
				})
			})
		}
	}
}

// A notification whose delivery is in doubt is sent again, and is there once. One that
// the network holds back may come twice: the server has nothing to tell it by. One that
// somebody else says yes to, in the server's own words, is lost.
func TestNetNotifyFails(t *testing.T) {
	for _, script := range []string{"say hello", "error 400"} {
		for _, name := range sortedNames(httpFaults) {
			if name == "204" {
				continue // which is the server's yes
			}
			t.Run(name+"/"+script, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake(t)
					f.faults(func(op string, nth int) fault {
						if op == "prompt" && nth >= 2 && nth <= 4 {
							return httpFaults[name]
						}
						return nil
					})
					w := newNetWorld(t, f)
					w.launch(script)
					w.settle()
					time.Sleep(10 * time.Minute)
					w.close()
					w.check(name == "late")
				})
			})
		}
	}
}

// A parent that is busy is told when it rests.
func TestNetNotifyWaitsForTheParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		w := newNetWorld(t, f)
		newVisitor(t, f).prompt(w.parent.id, "SCRIPT: work 50s; say done")
		w.launch("say hello")
		time.Sleep(49 * time.Second)
		require.Empty(t, w.box.all())
		w.settle()
		w.close()
		w.check(false)
		require.Equal(t, 2, w.parent.turns, "its own, and the one it was woken for")
	})
}

// One that is busy for longer is told while it works: its turn goes on with what it is
// told, so that none is begun for it; unless it was stopped before it came to that.
func TestNetDeposit(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			w := newNetWorld(t, f)
			v := newVisitor(t, f)
			v.prompt(w.parent.id, "SCRIPT: work 20m; say done")
			w.launch("say hello")
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Empty(t, w.box.all())
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Len(t, w.box.all(), 1)
			f.mu.Lock()
			notes := w.parent.notes
			f.mu.Unlock()
			require.Equal(t, 1, notes)
			if stopped {
				v.call(200, "POST", "/session/"+w.parent.id+"/abort?directory=/d", "")
			}
			time.Sleep(30 * time.Minute)
			w.settle()
			synctest.Wait()
			require.False(t, w.m.Pending(subagent.SessionID(w.parent.id)).Wake)
			turns := map[bool]int{false: 1, true: 2}[stopped]
			f.mu.Lock()
			require.Equal(t, turns, w.parent.turns)
			last := w.parent.msgs[len(w.parent.msgs)-1]
			require.Equal(t, "stop", last.info["finish"])
			require.Equal(t, 1, w.parent.has(w.box.all()[0].ID))
			f.mu.Unlock()
			require.Equal(t, subagent.HandWake, w.box.all()[1].Handover)
			w.close()
		})
	}
}
