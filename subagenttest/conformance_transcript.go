package subagenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

func checkTranscript(ctx context.Context, s Subject) error {
	r, ok := s.Client.(subagent.TranscriptReader)
	if !ok {
		return absent("the client is no subagent.TranscriptReader")
	}
	read := func(id subagent.SessionID, q subagent.TranscriptQuery) ([]subagent.Message, error) {
		return call(s.Settle, "Transcript", func() ([]subagent.Message, error) { return r.Transcript(ctx, id, q) })
	}
	_, err := read(unknown, subagent.TranscriptQuery{})
	if errors.Is(err, errors.ErrUnsupported) {
		return absent("Transcript is errors.ErrUnsupported")
	}
	if err := refused(err, "Transcript returned no error for a session that does not exist"); err != nil {
		return err
	}
	id, err := s.create(ctx)
	if err == nil {
		err = errors.Join(s.answers(ctx, id), s.answers(ctx, id))
	}
	if err != nil {
		return err
	}
	all, err := read(id, subagent.TranscriptQuery{})
	if err == nil {
		err = whole(all, s.Quick)
	}
	if err != nil {
		return err
	}
	for _, c := range []struct {
		q    subagent.TranscriptQuery
		want []subagent.Message
	}{
		{subagent.TranscriptQuery{Limit: len(all) + 1}, all},
		{subagent.TranscriptQuery{Limit: 1}, all[len(all)-1:]},
		{subagent.TranscriptQuery{Since: all[0].ID}, all[1:]},
		{subagent.TranscriptQuery{Since: all[len(all)-1].ID}, nil},
		{subagent.TranscriptQuery{Since: all[0].ID, Limit: 2}, all[len(all)-2:]},
		{subagent.TranscriptQuery{Since: all[1].ID, Limit: 1000}, all[2:]},
	} {
		got, err := read(id, c.q)
		if err != nil {
			return err
		}
		if !slices.Equal(idsOf(got), idsOf(c.want)) {
			return fmt.Errorf("of the messages %q Transcript returned %q, asked for %+v", idsOf(all), idsOf(got), c.q)
		}
	}
	return nil
}

// whole checks the transcript of two turns with the same prompt.
func whole(all []subagent.Message, prompt string) error {
	var users, answers int
	seen := map[string]bool{}
	for i, m := range all {
		switch {
		case m.ID == "" || seen[m.ID]:
			return fmt.Errorf("message %d of the transcript has the ID %q, which is empty or there twice", i, m.ID)
		case m.Role == subagent.RoleUser && strings.Contains(m.Text, prompt):
			users++
		case m.Role == subagent.RoleAssistant && m.Complete && m.Err == nil && m.Text != "":
			answers++
		}
		seen[m.ID] = true
		if answers > 0 && users == 0 {
			return fmt.Errorf("message %d of the transcript answers before it is asked", i)
		}
	}
	if users != 2 || answers < 2 {
		return fmt.Errorf("the transcript of two turns has %d prompts and %d complete answers", users, answers)
	}
	return nil
}

func idsOf(messages []subagent.Message) (ids []string) {
	for _, m := range messages {
		ids = append(ids, m.ID)
	}
	return ids
}
