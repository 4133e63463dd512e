package subagenttest

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The comment of each suite has every rule.
func TestRulesAreDocumented(t *testing.T) {
	documented(t, "conformance.go", "TestClient", clientRules)
	documented(t, "notifier.go", "TestNotifier", notifierRules)
}

func documented[S any](t *testing.T, name, suite string, rules []rule[S]) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
	require.NoError(t, err)
	var doc string
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == suite {
			doc = f.Doc.Text()
		}
	}
	require.Equal(t, len(rules), strings.Count(doc, "\n  - "))
	doc = strings.Join(strings.Fields(doc), " ")
	for _, r := range rules {
		require.Contains(t, doc, "- "+r.name+": "+r.says)
	}
}

// The outcome of a check comes out as the test's, with the rule.
func TestSuiteReports(t *testing.T) {
	for _, c := range []struct {
		err             error
		errors, skipped int
	}{{nil, 0, 0}, {errAbsent, 0, 1}, {errors.New("it is broken"), 1, 0}} {
		rec := &recorder{TB: t}
		var ctx context.Context
		rule[Subject]{"a rule", "what it says", func(within context.Context, _ Subject) error {
			ctx = within
			return c.err
		}}.run(t.Context(), rec, Subject{})
		require.Len(t, rec.errors, c.errors)
		require.Equal(t, c.skipped, rec.skipped)
		require.Error(t, ctx.Err(), "a failed check leaves nothing behind")
		if c.errors > 0 {
			require.Contains(t, rec.errors[0], "it is broken\nThe rule: what it says.")
		}
	}
}

// What is tested is tested with its defaults, and what it says is kept.
func TestSettleHasADefault(t *testing.T) {
	require.Equal(t, 10*time.Second, Subject{}.settled().Settle)
	require.Equal(t, time.Second, Subject{Settle: time.Second}.settled().Settle)
	require.Equal(t, 10*time.Second, Receiver{}.settled().Settle)
	require.Equal(t, time.Second, Receiver{Settle: time.Second}.settled().Settle)
	_, s := obedient(t)
	s.Settle = 0
	var seen time.Duration
	suite(t, []rule[Subject]{{"default", "", func(_ context.Context, s Subject) error { seen = s.Settle; return nil }}},
		func(*testing.T) Subject { return s })
	require.Equal(t, 10*time.Second, seen)
}
