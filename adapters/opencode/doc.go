// Package opencode runs child sessions in an opencode server, and tells parents that
// are sessions there. It was written against opencode 1.18.33.
//
//	oc, err := opencode.New(opencode.Config{URL: "http://127.0.0.1:4096", Logger: slog.Default()})
//	m, err := subagent.New(oc, subagent.Config{})
//	go func() { // the server's events, until ctx ends
//		if err := oc.Run(ctx, m.HandleEvent); ctx.Err() == nil {
//			log.Print("no events, so that all is seen later: ", err) // not let in
//		}
//	}()
//
// A child is a session below its parent's, in the parent's directory unless its launch
// names another, as an absolute path on the server's machine. Its turn is over when the
// server says that the session rests and a read shows a whole answer to this very
// prompt, which carries a mark of its own: idle events come twice, early, late, or for
// turns that never ran. Without Run, and while its stream is cut, the end of a turn is
// found by asking every few seconds.
//
// Notifications are messages of the parent's transcript, written while it rests, for
// its current agent and model. One that asks for a turn starts one. For a parent that
// stays busy it becomes part of the turn that goes on, or begins one later.
//
// Sessions that somebody else made and prompted can be tracked. A user who stops a
// parent's turn is told of as subagent.EventInterrupted.
//
// What the server does with a child is shown as Task.Progress. A model call that is
// tried again, and a permission or question that waits for an answer, are shown and
// end nothing: nobody answers them for you, see Config.Permissions.
//
// What the server can't do, this client can't either: opencode goes on trying model
// calls that fail with 429 or 5xx for as long as it likes, and a turn that was cut off
// by the server's end stays unfinished. Cancel ends the first; the second ends as
// interrupted. An answer that was cut at the model's limit, by a filter or by an error
// of the provider ends as failed, with what was said as its partial result.
package opencode
