package scriptedllm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

const (
	mark     = "SCRIPT:"
	theTitle = "Scripted title"
	theEnd   = "end of script"
)

// asked is a request to a model, whatever its API.
type asked struct {
	model    string
	stream   bool
	usage    bool // chat: the stream shall end with the usage
	system   string
	messages []Message
	tools    []string
}

// plan says how a request is answered.
type plan struct {
	prompt string // the user message that carries the script
	tag    string // of the script, for the ids of its calls
	n      int    // steps before this one, -1 without a script
	steps  int
	title  bool
	step   step
}

func said(text string) step { return step{{verb: say, text: text}} }

// plan finds the script and the step that is due.
func (a *asked) plan() (plan, error) {
	p := plan{n: -1, title: strings.Contains(strings.ToLower(a.system), "title generator")}
	if p.title {
		p.step = said(theTitle)
		return p, nil
	}
	at, line := a.script()
	if at < 0 {
		p.step = said("echo: " + a.lastUser(0))
		return p, nil
	}
	steps, err := parse(line)
	if err != nil {
		return p, fmt.Errorf("scriptedllm: %w", err)
	}
	p.prompt, p.tag, p.steps = a.messages[at].Text, tagOf(line), len(steps)
	p.n = callsSince(a.messages[at+1:], p.tag)
	switch {
	case p.n < len(steps):
		p.step = steps[p.n]
	case a.messages[len(a.messages)-1].Role == RoleUser:
		p.step = said("echo: " + a.lastUser(at+1))
	default:
		p.step = said(theEnd)
	}
	return p, nil
}

// script finds the last user message that has a script, and its last one.
func (a *asked) script() (at int, line string) {
	for at = len(a.messages) - 1; at >= 0; at-- {
		if a.messages[at].Role != RoleUser {
			continue
		}
		found := false
		for l := range strings.Lines(a.messages[at].Text) {
			if rest, ok := strings.CutPrefix(l, mark); ok {
				found, line = true, strings.TrimRight(rest, "\r\n")
			}
		}
		if found {
			return at, line
		}
	}
	return -1, ""
}

func (a *asked) lastUser(from int) string {
	for i := len(a.messages) - 1; i >= from; i-- {
		if a.messages[i].Role == RoleUser {
			return a.messages[i].Text
		}
	}
	return ""
}

// callsSince counts the calls of the model that were answered since the script came.
// An answer is what the assistant says without interruption, except that hosts may
// put each call beside its result: the ids of calls tell to which step they belong.
// Those of other scripts belong to a turn that this script was thrown into.
func callsSince(messages []Message, tag string) (n int) {
	before := RoleUser
	for _, m := range messages {
		if m.Role == RoleAssistant {
			tagged, last := false, -1
			for _, c := range m.Calls {
				t, k, ok := fromID(c.ID)
				tagged = tagged || ok
				if ok && t == tag {
					last = max(last, k)
				}
			}
			if tagged {
				n = max(n, last+1)
			} else if before != RoleAssistant {
				n++
			}
		}
		before = m.Role
	}
	return n
}

// tagOf is a short name of a script.
func tagOf(line string) string {
	sum := sha256.Sum256([]byte(line))
	return hex.EncodeToString(sum[:3])
}

// idOf puts script and step into the id of a tool call: call_SCRIPT_s0_RANDOM.
func idOf(prefix, tag string, step int, random string) string {
	return fmt.Sprintf("%s%s_s%d_%s", prefix, tag, step, random)
}

func fromID(id string) (tag string, step int, ok bool) {
	parts := strings.Split(id, "_")
	if len(parts) != 4 || parts[0] != "call" && parts[0] != "toolu" || len(parts[2]) < 2 || parts[2][0] != 's' {
		return "", 0, false
	}
	step, err := strconv.Atoi(parts[2][1:])
	return parts[1], step, err == nil && step >= 0 && step < 1<<20
}
