package scriptedllm_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/seed-48fd9ae4/subagent/subagenttest/scriptedllm"
)

// A program that is no test: the prompt says what the model answers.
func Example() {
	s := scriptedllm.NewUnstarted(scriptedllm.Config{})
	if err := s.Start("127.0.0.1:0"); err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	for range 2 {
		body := `{"model":"any","messages":[{"role":"user","content":"SCRIPT: error 429 x1 ra 1; say hello"}]}`
		res, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		answer, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		fmt.Println(res.StatusCode, res.Header.Get("Retry-After"), string(regexp.MustCompile(`"(content|message)":"[^"]*"`).Find(answer)))
	}
	if err := s.WaitIdle(context.Background()); err != nil {
		fmt.Println(err)
	}
	for _, r := range s.Requests() {
		fmt.Println(r)
	}
	// Output:
	// 429 1 "message":"scripted 429"
	// 200  "content":"hello"
	// 0: POST /v1/chat/completions, model "any", 1 messages, 0 tools, step 0: status 429
	// 1: POST /v1/chat/completions, model "any", 1 messages, 0 tools, step 0: status 200
}
