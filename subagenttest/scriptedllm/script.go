package scriptedllm

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// verb is the first word of an operation.
type verb string

const (
	say    verb = "say"
	think  verb = "think"
	slow   verb = "slow"
	sleep  verb = "sleep"
	tool   verb = "tool"
	hang   verb = "hang"
	drop   verb = "drop"
	fail   verb = "error"
	tokens verb = "usage"
)

// op is one operation; which fields count depends on its verb.
type op struct {
	verb      verb
	text      string          // say, think
	n         int             // slow: words; error: times, 0 for always
	d         time.Duration   // slow, sleep
	namespace string          // tool
	name      string          // tool
	input     json.RawMessage // tool: an object
	code      int             // error
	after     int             // error: Retry-After in seconds, -1 for none
	in, out   int             // usage
}

type step []op

// The bounds of what a script may ask for.
const (
	maxWords  = 1_000_000
	maxTimes  = 1_000_000
	maxTokens = 1_000_000_000
	maxAfter  = 86_400
)

// parser reads a script from its start; n and m count steps and operations from 1.
type parser struct {
	rest string
	n, m int
}

// parse reads what follows "SCRIPT:".
func parse(line string) ([]step, error) {
	p := &parser{rest: line, n: 1}
	var steps []step
	var now step
	for {
		p.m++
		p.rest = strings.TrimLeft(p.rest, " \t\r")
		begin := p.rest
		o, err := p.op()
		if err != nil {
			text, _, _ := cut(begin)
			return nil, fmt.Errorf("step %d, operation %d, %s: %w", p.n, p.m, quote(text), err)
		}
		now = append(now, o)
		switch {
		case p.rest == "":
			return append(steps, now), nil
		case p.rest[0] == ';':
			p.rest = p.rest[1:]
		default: // the two bars
			p.rest = p.rest[2:]
			steps, now = append(steps, now), nil
			p.n, p.m = p.n+1, 0
		}
	}
}

// quote shows the beginning of what is wrong.
func quote(s string) string {
	if runes := []rune(strings.TrimSpace(s)); len(runes) > 60 {
		s = string(runes[:60]) + "…"
	}
	return strconv.Quote(strings.TrimSpace(s))
}

// cut parts a text before the first separator.
func cut(s string) (before, after string, found bool) {
	i := strings.IndexByte(s, ';')
	if j := strings.Index(s, "||"); j >= 0 && (i < 0 || j < i) {
		i = j
	}
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i:], true
}

const verbs = "say, think, slow, sleep, tool, hang, drop, error, usage"

// op reads one operation and stops at the separator behind it.
func (p *parser) op() (op, error) {
	head, _, _ := cut(p.rest)
	word := head
	if i := strings.IndexAny(head, " \t\r"); i >= 0 {
		word = head[:i]
	}
	p.rest = strings.TrimLeft(p.rest[len(word):], " \t\r")
	switch v := verb(word); v {
	case "":
		return op{}, fmt.Errorf("an operation is missing: write one of %s", verbs)
	case say, think:
		text, err := p.text()
		return op{verb: v, text: text}, err
	case tool:
		return p.tool()
	case slow, sleep, hang, drop, fail, tokens:
		args, rest, _ := cut(p.rest)
		p.rest = rest
		return plain(v, strings.Fields(args))
	}
	return op{}, fmt.Errorf("no such operation: there are %s", verbs)
}

// text reads a JSON string, or all there is before the separator.
func (p *parser) text() (string, error) {
	if !strings.HasPrefix(p.rest, `"`) {
		text, rest, _ := cut(p.rest)
		p.rest = rest
		if text = strings.TrimSpace(text); text == "" {
			return "", fmt.Errorf(`a text must follow: write "" for an empty one`)
		}
		return text, nil
	}
	var text string
	if err := p.json(&text); err != nil {
		return "", fmt.Errorf("a text that begins with a quotation mark must be one JSON string: %w", err)
	}
	return text, nil
}

// json reads one value and wants a separator, or nothing, behind it.
func (p *parser) json(v any) error {
	dec := json.NewDecoder(strings.NewReader(p.rest))
	if err := dec.Decode(v); err != nil {
		return err
	}
	p.rest = strings.TrimLeft(p.rest[dec.InputOffset():], " \t\r")
	if between, _, _ := cut(p.rest); between != "" {
		return fmt.Errorf("%s follows it", quote(between))
	}
	return nil
}

var toolName = regexp.MustCompile(`^(?:([A-Za-z0-9_.-]+)::)?([A-Za-z0-9_.-]+)$`)

func (p *parser) tool() (op, error) {
	end := strings.IndexAny(p.rest, " \t\r;|{")
	if end < 0 {
		end = len(p.rest)
	}
	m := toolName.FindStringSubmatch(p.rest[:end])
	if m == nil {
		return op{}, fmt.Errorf("the tool's name must be letters, digits, _ . and -, after an optional namespace and ::, not %s", quote(p.rest[:end]))
	}
	p.rest = strings.TrimLeft(p.rest[end:], " \t\r")
	o := op{verb: tool, namespace: m[1], name: m[2], input: json.RawMessage("{}")}
	if between, _, _ := cut(p.rest); between == "" {
		return o, nil
	}
	var input map[string]any
	before := p.rest
	if err := p.json(&input); err != nil || input == nil {
		if err == nil {
			err = fmt.Errorf("it is null")
		}
		return op{}, fmt.Errorf("the tool's input must be one JSON object: %w", err)
	}
	raw := before[:len(before)-len(p.rest)]
	o.input = json.RawMessage(strings.ToValidUTF8(strings.TrimSpace(raw), "\uFFFD"))
	return o, nil
}

// plain reads the operations whose arguments are words.
func plain(v verb, args []string) (op, error) {
	o := op{verb: v}
	var err error
	switch {
	case v == slow && len(args) == 2:
		if o.n, err = number("the number of words", args[0], 1, maxWords); err == nil {
			o.d, err = duration(args[1])
		}
	case v == sleep && len(args) == 1:
		o.d, err = duration(args[0])
	case v == tokens && len(args) == 2:
		if o.in, err = number("the input's tokens", args[0], 0, maxTokens); err == nil {
			o.out, err = number("the output's tokens", args[1], 0, maxTokens)
		}
	case v == fail && len(args) > 0:
		return failure(args)
	case (v == hang || v == drop) && len(args) == 0:
	default:
		err = fmt.Errorf("write it as %q", usages[v])
	}
	return o, err
}

var usages = map[verb]string{
	slow: "slow N DURATION", sleep: "sleep DURATION", hang: "hang", drop: "drop",
	fail: "error CODE [xN] [ra SECONDS]", tokens: "usage IN OUT",
}

// failure reads error CODE [xN] [ra SECONDS].
func failure(args []string) (o op, err error) {
	o = op{verb: fail, after: -1}
	if o.code, err = number("the code", args[0], 400, 599); err != nil {
		return o, err
	}
	args = args[1:]
	if len(args) > 0 && strings.HasPrefix(args[0], "x") {
		if o.n, err = number("the times", args[0][1:], 1, maxTimes); err != nil {
			return o, err
		}
		args = args[1:]
	}
	if len(args) == 2 && args[0] == "ra" {
		o.after, err = number("the seconds", args[1], 0, maxAfter)
		return o, err
	}
	if len(args) > 0 {
		return o, fmt.Errorf("write it as %q", usages[fail])
	}
	return o, nil
}

func number(what, s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s must be a whole number from %d to %d, not %s", what, least, most, quote(s))
	}
	return n, nil
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("the duration must be like 100ms or 2s, not %s", quote(s))
	}
	return d, nil
}
