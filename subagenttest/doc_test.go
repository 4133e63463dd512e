package subagenttest_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// The test in the package's comment.
func TestStartTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := subagenttest.NewClient(t, func(c subagenttest.Call) subagenttest.Action {
			return subagenttest.Action{Hang: c.Op == subagenttest.OpCreate}
		})
		parent := subagenttest.NewParent(t)
		m, err := subagent.New(client, subagent.Config{Notifier: parent})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		task, _ := m.Launch(t.Context(), subagent.LaunchInput{Parent: "p", Agent: "a", Prompt: "x"})
		task, _ = m.Wait(t.Context(), task.ID)
		if !errors.Is(task.Reason, subagent.StartTimeout) {
			t.Errorf("the task ended because of %v", task.Reason)
		}
	})
}

// The subject of ExampleTestClient passes.
func TestExampleConforms(t *testing.T) { subagenttest.TestClient(t, subject) }

// The receiver of ExampleTestNotifier passes too.
func TestExampleTells(t *testing.T) { subagenttest.TestNotifier(t, receiver) }
