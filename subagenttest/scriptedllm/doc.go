// Package scriptedllm is a model server for tests of real agent hosts. It speaks
// what hosts speak, and says what the prompt tells it to:
//
//	func TestHost(t *testing.T) {
//		llm := scriptedllm.New(t, scriptedllm.Config{})
//		host := startHost(t, llm.URL+"/v1") // its base URL for models
//		go host.Prompt(`SCRIPT: tool bash {"command":"ls"} || say two files; hang`)
//
//		_, err := llm.WaitFor(t.Context(), func(r scriptedllm.Request) bool { return r.Step == 1 })
//		if err != nil {
//			t.Fatal(err)
//		}
//		host.Abort() // while the model hangs
//		if err := llm.WaitIdle(t.Context()); err != nil {
//			t.Error("the host is still connected to its model")
//		}
//	}
//
// # What it speaks
//
//	POST /v1/chat/completions                     OpenAI chat completions
//	POST /v1/responses                            OpenAI Responses
//	POST /v1/messages                             Anthropic messages
//	POST /v1beta/models/{model}:generateContent   Gemini; :streamGenerateContent with ?alt=sse or without
//
// All of them stream or answer at once, as they are asked. It lists models at
// /v1/models and /v1beta/models, counts tokens at /v1/messages/count_tokens and
// :countTokens, and answers the probe HEAD /. Any model and any key will do.
//
// # Scripts
//
// The script travels in the prompt, and the server remembers no conversation, so
// that sessions in parallel, side calls and retries can't take each other's answers.
// It is the last line that begins with "SCRIPT:", in the last user message that has
// one. Steps are parted by "||" and operations by ";":
//
//	SCRIPT: think hm; tool read {"path":"a"}; tool read {"path":"b"} || sleep 1s; say done
//
// Step i answers the i-th call of the model after that message. Messages that come
// later and have no script, such as notifications, go on in it. After its last step
// the model says "end of script", or echoes a user message that came since. Without
// a script it says "echo: " and the last user message. A request whose system prompt
// mentions a title generator gets the title "Scripted title".
//
//	say TEXT              text; several are one text, in as many deltas
//	think TEXT            the same for reasoning
//	slow N DURATION       N words of text, one per DURATION
//	sleep DURATION        nothing for so long
//	tool NAME [{json}]    a call of a tool; several in one step are parallel calls
//	hang                  no more until the client goes away
//	drop                  the connection breaks in the middle of the answer
//	error CODE [xN] [ra SECONDS]
//	                      an HTTP error, the first N times only, with Retry-After
//	usage IN OUT          the tokens that the answer is said to have cost; else 10 and 5
//
// A TEXT that begins with a quotation mark is a JSON string: only there may ";",
// "||" and line ends be in it. NAME may have a namespace, mcp__server::tool. It
// stays apart in Responses; elsewhere the name is mcp__server__tool. An error after
// the first output of a stream is told in the stream. A script that breaks a rule is
// answered with status 400 and a message that names the step, the operation and the
// rule.
//
// Two things to know. Whether an error with xN is over is counted by the text of the
// user message and the step: sessions that should fail independently need different
// prompts. And a host that makes calls of its own with the user's prompt in them, and
// no title generator, takes part in the count.
package scriptedllm
