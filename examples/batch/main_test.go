package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// printed is all that the program prints, with the texts of notifications in short.
const printed = `Two parents launch three children each, in turns; three children run at a time.
0.0s  starting   alice  read the changelog
0.0s  starting   bob    time the tests
0.0s  starting   alice  find uses of the old API
0.8s  completed  bob    time the tests
0.8s  starting   bob    ask the build server
1.2s  failed     bob    ask the build server
1.2s  starting   alice  build with the new version

1.3s  to bob, told at once:
  > completed time the tests
  > | 41 s in all, and 30 s of them in package storage
  > failed ask the build server

1.6s  completed  alice  read the changelog
1.6s  starting   bob    look for sleeps in tests
1.9s  completed  alice  find uses of the old API
2.1s  completed  alice  build with the new version

2.2s  to alice, its final notification:
  > completed read the changelog
  > | two breaking changes: Open takes a context, Flush is gone
  > completed find uses of the old API
  > | Open: 14 calls
  > | Flush: 3 calls, all in store.go
  > completed build with the new version
  > | 17 errors, one for each of those calls

3.0s  completed  bob    look for sleeps in tests

3.1s  to bob, its final notification:
  > completed look for sleeps in tests
  > | storage_test.go has 7, of 4 s each
  > completed time the tests
  > failed ask the build server

Notifications: 1 to alice, 2 to bob.
`

var (
	told  = regexp.MustCompile(`(?m)^  > - bg_\w{26} (\w+).*; "([^"]+)"; ran .*$`)
	words = regexp.MustCompile(`(?m)^  > [A-Z].*\n`)
)

// In a bubble of fake time each run is the same.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, printed, told.ReplaceAllString(words.ReplaceAllString(out.String(), ""), "  > $1 $2"))
	})
}

// It can be stopped, and leaves nothing: the bubble would wait for that.
func TestStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, run(ctx, new(strings.Builder)), context.DeadlineExceeded)
	})
}
