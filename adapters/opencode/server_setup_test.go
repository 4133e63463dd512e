package opencode_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// findProgram is the opencode that .ci/fetch-hosts put into the user's cache. Without
// one the test is skipped, or fails if SUBAGENT_HOSTS is "required".
func findProgram(t testing.TB) string {
	t.Helper()
	mode := os.Getenv("SUBAGENT_HOSTS")
	require.Contains(t, []string{"", "off", "required"}, mode, "SUBAGENT_HOSTS")
	if mode == "off" {
		t.Skip("needs opencode, but SUBAGENT_HOSTS=off")
	}
	program, err := cached("opencode")
	require.NoError(t, err)
	if _, err := os.Stat(seen(t, program)); err == nil {
		return program
	}
	const advice = "needs opencode: run make test on a machine with Node (npm)"
	if mode == "required" {
		t.Fatalf("%s; it is not at %s", advice, program)
	}
	t.Skip(advice)
	return ""
}

// cached is where the program of a host is, for the lock file as it is now.
func cached(name string) (string, error) {
	lock, err := os.ReadFile("testdata/host/package-lock.json")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	sum := fmt.Sprintf("%x", sha256.Sum256(lock))
	return filepath.Join(cache, "subagent-hosts", sum[:16], name), err
}

// seen is a path by way of the module, such as /module/../cache/x. go test remembers
// a result until files change that the test looked at, but only those in its module:
// by this way it notices when a program has come that was missing.
func seen(t testing.TB, path string) string {
	t.Helper()
	module, err := os.Getwd()
	require.NoError(t, err)
	rel, err := filepath.Rel(module, path)
	require.NoError(t, err)
	return module + string(filepath.Separator) + rel
}

func (h *host) tmp() string { return filepath.Join(h.root, "home", "tmp") }

// env is all that the program gets from outside: what the machine's user has
// configured stays unknown to it, and it fetches nothing.
func (h *host) env() []string {
	home := filepath.Dir(h.tmp())
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + h.tmp()}
	for _, kind := range []string{"DATA", "CONFIG", "STATE", "CACHE"} {
		env = append(env, "XDG_"+kind+"_HOME="+filepath.Join(home, kind))
	}
	for _, what := range []string{"AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE", "CLAUDE_CODE", "EXTERNAL_SKILLS"} {
		env = append(env, "OPENCODE_DISABLE_"+what+"=1")
	}
	if h.password != "" {
		env = append(env, "OPENCODE_SERVER_PASSWORD="+h.password)
	}
	return env
}

type object = map[string]any

// configure makes a directory a project whose only provider is the scripted model,
// under two names. All is allowed that needs no answer from a user.
func (h *host) configure(dir string) error {
	model := func(name string) object {
		return object{"name": name, "tool_call": true, "limit": object{"context": 200000, "output": 8000}}
	}
	config, err := json.MarshalIndent(object{
		"model": "fake/scripted", "small_model": "fake/scripted", "enabled_providers": []string{"fake"},
		"autoupdate": false, "share": "disabled", "snapshot": false,
		"permission": object{
			"*": "allow", "bash": "allow", "edit": "allow", "doom_loop": "allow", "external_directory": "allow",
			"webfetch": "deny", "question": "deny",
		},
		"provider": object{"fake": object{
			"npm": "@ai-sdk/openai-compatible", "name": "Fake",
			"options": object{"baseURL": h.llm.URL + "/v1", "apiKey": "x"},
			"models":  object{"scripted": model("Scripted"), "other": model("Other")},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "opencode.json"), config, 0o600)
}
