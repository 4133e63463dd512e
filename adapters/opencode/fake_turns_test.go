package opencode_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The fake tells of a turn what the server tells, in its order.
func TestFakeTellsTurnsAsTheServerDoes(t *testing.T) {
	const begun = "created, updated user, part.updated text, updated, status busy, "
	const answer = "updated assistant, status busy, part.updated step-start, "
	const said = "part.updated text, part.delta hi, part.updated text, "
	const idle = "status idle, idle"
	const after = "part.updated step-finish, updated assistant.stop, updated assistant.stop, status busy, " + idle + ", updated, diff"
	for _, c := range []struct{ script, told string }{
		{"say hi", begun + answer + said + after},
		{
			"tool 1s || say hi",
			begun + answer + "part.updated tool pending, part.updated tool running, part.updated tool completed, " +
				"part.updated step-finish, updated assistant.tool-calls, updated assistant.tool-calls, status busy, " + answer + said + after,
		},
		{"error 400", begun + answer + "error APIError, " + idle + ", updated assistant, " + idle},
		{"retry 2; say hi", begun + answer + "status retry, status retry, status busy, " + said + after},
		{"todo 1; say hi", begun + answer + "todo.updated, " + said + after},
		{"vanish", strings.TrimSuffix(begun+answer, ", ")},
	} {
		t.Run(c.script, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVisitor(t, newFake(t))
				ctx, cancel := context.WithCancel(t.Context())
				told := v.listen(ctx)
				id := v.create(`{"title":"x"}`)
				v.prompt(id, "Please.\nSCRIPT: "+c.script)
				time.Sleep(time.Minute)
				require.Equal(t, "{}", v.call(200, "GET", "/session/status?directory=/d", ""))
				cancel()
				require.Equal(t, c.told, strings.Join(told(id), ", "))
			})
		})
	}
}

// An abort stops a turn, and says so in the ways of the server.
func TestFakeStopsTurnsAsTheServerDoes(t *testing.T) {
	const idle = "status idle, idle"
	for _, c := range []struct{ script, end, err string }{
		{"say hi; hang", "error MessageAbortedError, " + idle + ", updated assistant, " + idle, "MessageAbortedError"},
		{"retry 0", "status retry, status retry, updated assistant, " + idle, ""},
		{"say hi", "updated, diff, " + idle, ""},
	} {
		t.Run(c.script, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newVisitor(t, newFake(t))
				ctx, cancel := context.WithCancel(t.Context())
				told := v.listen(ctx)
				id := v.create(`{}`)
				v.prompt(id, "SCRIPT: "+c.script)
				time.Sleep(3 * time.Second)
				require.Equal(t, "true", v.call(200, "POST", "/session/"+id+"/abort", ""))
				time.Sleep(time.Second)
				cancel()
				require.True(t, strings.HasSuffix(strings.Join(told(id), ", "), c.end), told(id))
				last := v.messages(id, "limit=1")[0]
				require.NotZero(t, last.Info.Time.Completed)
				if c.err != "" {
					require.Equal(t, c.err, last.Info.Error.Name)
				} else {
					require.Nil(t, last.Info.Error)
				}
			})
		})
	}
}

// A message to a busy session joins its turn, also one that wants no answer; to an
// idle one that wants none nothing happens.
func TestFakeMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		v := newVisitor(t, f)
		id := v.create(`{}`)
		send := func(body string) { v.call(204, "POST", "/session/"+id+"/prompt_async", body) }
		send(`{"noReply":true,"parts":[{"type":"text","text":"note","metadata":{"k":"v"}}]}`)
		time.Sleep(time.Minute)
		all := v.messages(id, "")
		require.Len(t, all, 1)
		require.Equal(t, "v", all[0].Parts[0].Metadata["k"])
		send(`{"messageID":"msg_1","parts":[{"type":"text","text":"SCRIPT: work 10s; say a"}]}`)
		require.Equal(t, map[string]fields{id: {"type": "busy"}}, decode[map[string]fields](t, v.call(200, "GET", "/session/status?directory=/d", "")))
		require.Equal(t, "{}", v.call(200, "GET", "/session/status", ""))
		time.Sleep(5 * time.Second)
		send(`{"noReply":true,"parts":[{"type":"text","text":"more"}]}`)
		send(`{"parts":[{"type":"text","text":"and more"}]}`)
		time.Sleep(time.Minute)
		all = v.messages(id, "")
		require.Len(t, all, 6)
		require.Equal(t, "msg_1", all[2].Info.ParentID)
		require.Equal(t, "echo: and more", all[5].Parts[1].Text)
		send(`{"messageID":"msg_1","parts":[{"type":"text","text":"SCRIPT: say again"}]}`)
		time.Sleep(time.Minute)
		require.Len(t, v.messages(id, ""), 6, "what was there is not answered again")
		require.Len(t, v.messages(id, "")[1].Parts, 2)
		s := f.find(id)
		require.Equal(t, []int{2, 3, 2}, []int{s.turns, s.prompts, s.notes})
	})
}

// What is read in pages is everything, once.
func TestFakePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisitor(t, newFake(t))
		id := v.create(`{}`)
		for range 7 {
			v.call(204, "POST", "/session/"+id+"/prompt_async", `{"noReply":true,"parts":[]}`)
		}
		var read []string
		for before := ""; ; {
			resp, err := v.http.Get(v.f.url() + "/session/" + id + "/message?limit=3&before=" + before)
			require.NoError(t, err)
			var page []said
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&page))
			require.NoError(t, resp.Body.Close())
			ids := make([]string, len(page))
			for i, m := range page {
				ids[i] = m.Info.ID
			}
			read = append(ids, read...)
			if before = resp.Header.Get("X-Next-Cursor"); before == "" {
				break
			}
		}
		require.Len(t, read, 7)
		require.IsIncreasing(t, read)
	})
}

// What the server does not know, or can't read, it says in its own ways.
func TestFakeErrors(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/session/ses_nope", "", 404, "NotFoundError"},
		{"GET", "/session/nope", "", 500, "UnknownError"},
		{"DELETE", "/session/ses_nope", "", 404, "NotFoundError"},
		{"POST", "/session/ses_nope/prompt_async", `{"parts":[]}`, 404, "NotFoundError"},
		{"POST", "/session/ses_nope/abort", "", 200, "true"},
		{"POST", "/session", `{"parentID":"x"}`, 400, "BadRequest"},
		{"GET", "/session/ses_nope/message", "", 404, "NotFoundError"},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newVisitor(t, newFake(t))
			require.Contains(t, v.call(c.code, c.method, c.path, c.body), c.says)
		})
	}
}

// A permission is asked for before its call runs; a refusal ends the turn without an
// error.
func TestFakeAsksPermission(t *testing.T) {
	for answer, told := range map[string]string{
		"once":   "permission.asked, part.updated tool running, permission.replied, part.updated tool completed, part.updated text, ",
		"reject": "permission.asked, part.updated tool running, permission.replied, part.updated tool error, updated assistant.tool-calls, status idle, idle",
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newVisitor(t, newFake(t))
			ctx, cancel := context.WithCancel(t.Context())
			heard := v.listen(ctx)
			id := v.create(`{}`)
			v.prompt(id, "SCRIPT: ask; say hi")
			time.Sleep(time.Hour)
			asked := decode[[]struct{ ID, SessionID string }](t, v.call(200, "GET", "/permission?directory=/d", ""))
			require.Len(t, asked, 1)
			require.Equal(t, id, asked[0].SessionID)
			v.call(200, "POST", "/permission/"+asked[0].ID+"/reply", `{"reply":"`+answer+`"}`)
			time.Sleep(time.Minute)
			cancel()
			require.Contains(t, strings.Join(heard(id), ", "), told)
		})
	}
}

// A deleted session takes those below it along; what they do goes on.
func TestFakeDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		v := newVisitor(t, f)
		root := v.create(`{}`)
		child := v.create(`{"parentID":"` + root + `"}`)
		v.prompt(child, "SCRIPT: work 1m; say late")
		v.call(200, "DELETE", "/session/"+root, "")
		v.call(404, "GET", "/session/"+child, "")
		require.Equal(t, []string{child}, f.running())
		time.Sleep(time.Hour)
		require.Empty(t, f.running())
	})
}

// A stream begins where it is opened, and beats.
func TestFakeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisitor(t, newFake(t))
		ctx, cancel := context.WithCancel(t.Context())
		told := v.listen(ctx)
		time.Sleep(35 * time.Second)
		cancel()
		require.Empty(t, told(v.create(`{}`)))
		require.Len(t, told(""), 4, "its first word and three heartbeats")
	})
}
