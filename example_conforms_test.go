package subagent_test

import (
	"testing"
	"time"

	"github.com/seed-48fd9ae4/subagent"
	"github.com/seed-48fd9ae4/subagent/subagenttest"
)

// The client of ExampleSessionClient keeps the contract.
func TestExampleClientConforms(t *testing.T) {
	t.Parallel()
	subagenttest.TestClient(t, func(*testing.T) subagenttest.Subject {
		return subagenttest.Subject{
			Client: &chat{sessions: map[subagent.SessionID]*conversation{}},
			Quick:  "hello", Long: "think for ever", Settle: 3 * time.Second,
		}
	})
}
