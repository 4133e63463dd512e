package scriptedllm

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for line, want := range map[string][]step{
		"say hello":               {{{verb: say, text: "hello"}}},
		" say a | b || think c; ": nil,
		`say "a;||\n"; say ""`:    {{{verb: say, text: "a;||\n"}, {verb: say}}},
		"say a|b||say c":          {{{verb: say, text: "a|b"}}, {{verb: say, text: "c"}}},
		"slow 3 1m ; sleep 0":     {{{verb: slow, n: 3, d: time.Minute}, {verb: sleep}}},
		"hang||drop":              {{{verb: hang}}, {{verb: drop}}},
		"error 429 x2 ra 1":       {{{verb: fail, code: 429, n: 2, after: 1}}},
		"error 500 ra 0;error 400 x1;error 401": {{
			{verb: fail, code: 500}, {verb: fail, code: 400, n: 1, after: -1}, {verb: fail, code: 401, after: -1},
		}},
		"usage 0 12":   {{{verb: tokens, out: 12}}},
		`tool a.b-c_d`: {{{verb: tool, name: "a.b-c_d", input: raw(object{})}}},
		`tool x{"p":"SCRIPT: say 1 || say 2; }"} ; tool mcp__s::y || say z`: {
			{{verb: tool, name: "x", input: []byte(`{"p":"SCRIPT: say 1 || say 2; }"}`)}, {verb: tool, namespace: "mcp__s", name: "y", input: raw(object{})}},
			{{verb: say, text: "z"}},
		},
	} {
		got, err := parse(line)
		if want == nil {
			require.Error(t, err, line)
			continue
		}
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
}

// Every refusal says where, what and why.
func TestBadScripts(t *testing.T) {
	for line, want := range map[string]string{
		"":                      `step 1, operation 1, "": an operation is missing: write one of say, think, slow, sleep, tool, hang, drop, error, usage`,
		"say a;":                `step 1, operation 2, "": an operation is missing`,
		"say a || ; say b":      `step 2, operation 1, "": an operation is missing`,
		"say a || say b; bye x": `step 2, operation 2, "bye x": no such operation: there are say, think,`,
		"say":                   `step 1, operation 1, "say": a text must follow: write "" for an empty one`,
		`say "a`:                `a text that begins with a quotation mark must be one JSON string: unexpected EOF`,
		`say "a" b`:             `must be one JSON string: "b" follows it`,
		"slow 3":                `"slow 3": write it as "slow N DURATION"`,
		"slow 0 1s":             `the number of words must be a whole number from 1 to 1000000, not "0"`,
		"slow x 1s":             `not "x"`,
		"slow 1 1":              `the duration must be like 100ms or 2s, not "1"`,
		"sleep -1s":             `the duration must be like 100ms or 2s, not "-1s"`,
		"sleep":                 `write it as "sleep DURATION"`,
		"hang 1":                `write it as "hang"`,
		"drop it":               `write it as "drop"`,
		"tool":                  `the tool's name must be letters, digits, _ . and -, after an optional namespace and ::, not ""`,
		"tool a::":              `not "a::"`,
		"tool a b":              `the tool's input must be one JSON object: invalid character 'b'`,
		"tool a [1]":            `the tool's input must be one JSON object: json: cannot unmarshal array`,
		"tool a null":           `the tool's input must be one JSON object: it is null`,
		`tool a {"b":1`:         `the tool's input must be one JSON object: unexpected EOF`,
		`tool a {} {}`:          `the tool's input must be one JSON object: "{}" follows it`,
		"error":                 `write it as "error CODE [xN] [ra SECONDS]"`,
		"error 200":             `the code must be a whole number from 400 to 599, not "200"`,
		"error 500 x0":          `the times must be a whole number from 1 to 1000000, not "0"`,
		"error 500 ra":          `write it as "error CODE [xN] [ra SECONDS]"`,
		"error 500 ra 1s":       `the seconds must be a whole number from 0 to 86400, not "1s"`,
		"error 500 ra 1 x2":     `write it as "error CODE [xN] [ra SECONDS]"`,
		"usage 1":               `write it as "usage IN OUT"`,
		"usage 1 -1":            `the output's tokens must be a whole number from 0 to 1000000000, not "-1"`,
		strings.Repeat("x", 99): `operation 1, "` + strings.Repeat("x", 60) + `…": no such`,
	} {
		_, err := parse(line)
		require.ErrorContains(t, err, want, line)
	}
}

// render writes a script that parses to the same steps.
func render(steps []step) string {
	var all []string
	for _, st := range steps {
		var ops []string
		for _, o := range st {
			s := string(o.verb)
			switch o.verb {
			case say, think:
				s += " " + encode(o.text)
			case slow:
				s += fmt.Sprintf(" %d %v", o.n, o.d)
			case sleep:
				s += fmt.Sprintf(" %v", o.d)
			case tool:
				s += " " + strings.TrimPrefix(o.namespace+"::"+o.name, "::") + string(o.input)
			case fail:
				s += fmt.Sprintf(" %d", o.code)
				if o.n > 0 {
					s += fmt.Sprintf(" x%d", o.n)
				}
				if o.after >= 0 {
					s += fmt.Sprintf(" ra %d", o.after)
				}
			case tokens:
				s += fmt.Sprintf(" %d %d", o.in, o.out)
			}
			ops = append(ops, s)
		}
		all = append(all, strings.Join(ops, ";"))
	}
	return strings.Join(all, "||")
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`say a; think "b" || slow 3 1s; sleep 1ms || tool x {"a":[1,"||"]}; tool a::b; hang; drop || error 429 x1 ra 1; usage 1 2`,
		"say a|b||say c", "tool a|", "say ;", "||", `say "`, "tool x{}", "\u00a0", "say \t\r\v", "error 500 x", "tool x {\"\":\"\u2028\"}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		steps, err := parse(line)
		if err != nil {
			require.Regexp(t, `^step \d+, operation \d+, "`, err.Error())
			return
		}
		require.NotEmpty(t, steps)
		for _, st := range steps {
			require.NotEmpty(t, st)
		}
		if !utf8.ValidString(line) {
			return // prompts are JSON, and so are never like this
		}
		again, err := parse(render(steps))
		require.NoError(t, err, render(steps))
		require.Equal(t, steps, again)
	})
}
