package opencode_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Each fault is what its name says: the client gets no answer, another one, or a late
// one, and the server has heard of the call or not.
func TestFakeFaults(t *testing.T) {
	const none = 0 // no answer
	for name, c := range map[string]struct {
		code  int
		heard bool
		takes time.Duration
	}{
		"reset before": {none, false, 0}, "reset after": {none, true, 0}, "reset in body": {none, true, 0},
		"stall in body": {none, true, 30 * time.Second}, "stall for ever": {none, true, 30 * time.Second},
		"slow": {200, true, 8 * time.Second}, "late": {none, true, 30 * time.Second}, "late headers": {none, true, 30 * time.Second},
		"dripping": {200, true, 0}, "dripping slowly": {200, true, 3 * time.Second},
		"500": {500, false, 0}, "503": {503, false, 0}, "500 and done": {500, true, 0}, "502 page": {502, false, 0},
		"200 page": {200, false, 0}, "204": {204, false, 0}, "200 empty": {200, false, 0}, "429": {429, false, 0},
		"garbage": {200, false, 0}, "null": {200, false, 0}, "other JSON": {200, false, 0}, "redirect": {302, false, 0}, "redirect with it": {307, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				f.faults(once("create", 1, httpFaults[name]))
				v := newVisitor(t, f)
				v.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				began := time.Now()
				code, _, err := v.try("POST", "/session", `{}`)
				require.InDelta(t, c.takes.Seconds(), time.Since(began).Seconds(), 2)
				if c.code == none {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					require.Equal(t, c.code, code)
				}
				time.Sleep(10 * time.Minute)
				heard := 0
				if c.heard {
					heard = 1
				}
				require.Equal(t, heard, f.made())
				v.create(`{}`)
				require.Equal(t, heard+1, f.made(), "the second call goes well")
			})
		})
	}
}

// A monster is as large as it says, and the fake does not hold it.
func TestFakeMonsters(t *testing.T) {
	if testing.Short() {
		t.Skip("moves gigabytes through a pipe")
	}
	for _, path := range []string{"/session/ses_x", "/global/event"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t)
			f.faults(once("get", 1, httpFaults["endless"]))
			f.streamFaults(always(both(cutAfter(3), monstrous)))
			v := newVisitor(t, f)
			before := heap()
			resp, err := v.http.Get(v.f.url() + path)
			require.NoError(t, err)
			if path == "/global/event" {
				f.root("/d")
				f.root("/d")
			}
			n, _ := io.Copy(io.Discard, resp.Body)
			require.NoError(t, resp.Body.Close())
			require.Greater(t, n, int64(huge)-1)
			require.Less(t, heap()-before, int64(16<<20))
		})
	}
}
