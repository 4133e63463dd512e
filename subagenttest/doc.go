// Package subagenttest helps to test what is built with package subagent.
//
// [Client] is a scripted fake of an agent host. Its script decides, call by call,
// what goes wrong: errors, hangs, panics, sessions that were made although the
// call failed, turns that outlive their calls. It watches whether the manager keeps
// its side of the contract, and fails the test if a turn is left running or a
// session forgotten. [Parent] is a receiver of notifications with a ledger of its
// own. Both work with fake time, so that a test of time-outs takes none:
//
//	func TestStartTimeout(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			client := subagenttest.NewClient(t, func(c subagenttest.Call) subagenttest.Action {
//				return subagenttest.Action{Hang: c.Op == subagenttest.OpCreate}
//			})
//			parent := subagenttest.NewParent(t)
//			m, err := subagent.New(client, subagent.Config{Notifier: parent})
//			if err != nil {
//				t.Fatal(err)
//			}
//			defer m.Close()
//			task, _ := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
//			task, _ = m.Wait(t.Context(), task.ID)
//			if !errors.Is(task.Reason, subagent.StartTimeout) {
//				t.Errorf("the task ended because of %v", task.Reason)
//			}
//		})
//	}
//
// [TestClient] is the conformance suite that every [subagent.SessionClient] should
// pass, and [TestNotifier] that for every [subagent.Notifier]. They run against a real host
// or a fake one, in real time.
package subagenttest
