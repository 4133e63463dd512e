// Package subagent runs child agents in the background of a Go program.
//
// A program that hosts LLM agents makes one [BackgroundManager] over its agent
// runtime, a [SessionClient]. An agent then delegates work and goes on: Launch
// returns at once, children wait in fair queues under concurrency limits, run in
// sessions of the runtime, and the parent is told in batches of those that have
// ended; the last one is marked as final.
//
// [Func] makes a client of an agent loop in this process, [Blocking] of a host that
// takes a prompt and goes on by itself; module adapters/opencode is one of an opencode
// server.
//
// # The life of one task
//
//	Launch     the input is checked and captured; the task is pending in the
//	           queue of its model, or of its agent if it names no model
//	slot       its turn has come and every limit that applies has room: it gets
//	           its lease, and a goroutine of its own calls Create
//	prompted   the session is there; the same goroutine calls Prompt, which
//	           returns when the child's turn is over
//	ending     in one step the status becomes terminal, the lease goes back and
//	           the notice for the parent is put down
//	telling    notices are gathered for a moment and handed to the Notifier until
//	           it accepts them or MailboxPolicy.Tries have failed; what is left, or
//	           all where there is no Notifier, is taken with Drain
//
// Status says where a task is, [Reason] why. A task that is stopped is Stopping
// until its child is known to be at rest; its outcome is fixed from then on.
// docs/state_machine.md shows the whole table.
//
// # Guarantees
//
// Each names the test that shows it; TestStorm tries all of them over random lives
// on hosts that fail in every way.
//
//  1. A run ends once: the first ending wins, and everybody learns of the same
//     one. (TestEveryCell, TestL04CancelAgainstCompletion)
//  2. No limit is exceeded, and no lease is lost: what is held is what runs.
//     (TestStorm, TestFailuresOfTheClient)
//  3. Within a key the first to wait is the first to start; the head of a queue is
//     passed by at most 64 times, while its parent is at its own cap. With
//     [KeyLimits].Fair parents take turns instead: what one of them launched starts in
//     order, and while it is not at its cap, each other parent passes its first task at
//     most once. Between keys that share limits the oldest of those that are next goes
//     first, and is not starved by younger ones that need fewer of them.
//     (TestFirstInFirstOut, TestHeadIsPassedSoOften, TestEachParentPassesOnce,
//     TestParentsTakeTurns, TestClaim)
//  4. A lease is held until the child is known to be at rest, or Config.AbortGrace
//     has passed; then the child is marked and listed as unstopped until it is.
//     (TestLeaseIsHeldUntilAtRest, TestCancelWhenAbortFails,
//     TestOvertakenPromptIsListed, TestLeftRunningEndsWithAnError)
//  5. No child runs unseen: what is created late is stopped and released, a prompt
//     that may still come is listed, and no session of a task is woken by its own
//     mail. (TestCreateHangs, TestL07CloseDuringCreate, TestPromptInDoubt,
//     TestNoticeOutWhenAChildEnds)
//  6. A stopped task takes its descendants with it, and nothing is launched below
//     it any more. (TestCascade, TestLaunchDuringCascade)
//  7. A finished run is owed to its parent from the instant of its ending until it
//     is accepted, drained, read by the parent itself through As, or dropped and
//     counted. (TestPendingHasNoGap, TestL10NoticeSurvivesFailedSends, TestParking,
//     TestNoticesOfAGoneChildGoUp, TestNobodyIsLeftToTell, TestReadIsNotTold)
//  8. A receiver that keeps track of (task, run) sees each run exactly once: a
//     batch is frozen when it is first sent. Of what a child took whose task ended
//     meanwhile, the next session above hears too.
//     (TestL10NoticeSurvivesFailedSends, TestNoticeOutWhenAChildEnds)
//  9. A notification is final exactly when nothing is left that its parent will be
//     told of, and after something was told a final one comes. If every ending was
//     silent (NoNotice, Do, ByParent, CancelOptions.Silent) or read through As none
//     does: Pending(p).Live is the test that always holds.
//     (TestThreeSiblings, TestSilentCancelClosesBatch, TestLaunchWhileTheLastEnds,
//     TestInheritedTasksKeepTheBatchOpen)
//  10. A panic in the host's code, or runtime.Goexit, fails one task, one delivery or
//     one hook and nothing else.
//     (TestFailuresOfTheClient, TestLogging, TestOwnRender, TestErrorsOfTheHost,
//     TestGoexitInTheHost, TestHostileReceiver, TestGoexitInRender, TestHookThatPanics)
//  11. Close is bounded, and Shutdown from the end of its ctx on; they leave no goroutine but calls of the host
//     that never return, which they list. (TestCloseIsBounded,
//     TestLogThatBlocksHoldsUpNothing, TestFailedReleaseIsListed, TestHookThatBlocks,
//     TestSessionCreatedHangs)
//  12. A refused call changes nothing, and names the field or limit, its value and
//     the rule. (TestLaunchRefused, TestConfigNumbers, TestConfigAgents,
//     TestLimitsOfNamesRefused, TestSetLimitRefused, TestFilterRefused,
//     TestSubscribeRefused)
//  13. Who subscribes is told of each run's ending exactly once, with all of it, in the
//     order of the task's events, or that events were dropped. Nothing waits for a
//     subscriber or a hook, but a prompt for SessionCreated, for a second.
//     (TestOneTerminalEvent, TestStuckSubscriber, TestHookThatBlocks,
//     TestSessionCreatedHangs)
//  14. A parent that stays busy is deposited with after MailboxPolicy.BusyMax, and woken
//     once, when it idles. (TestBusyForLong, TestUnknownWake)
//  15. Of several that resume a task at the same time one wins; each run is told of by
//     itself, as it was, and the earlier result can be read until there is another.
//     (TestL03OneResumeWins, TestResumeWhileOwed, TestCancelResumed)
//  16. A finished task is forgotten by all indexes together, not before its parent was
//     told of it, has read it, or was given up on and counted, and never while it is
//     needed; memory is flat. (TestForgotten, TestForgottenFromDelivery,
//     TestNeededIsKept, TestMemoryIsFlat)
//  17. Through As a session reaches its own task and those below it, and any other is
//     as unknown as an id that never was. (TestForeignIsUnknown,
//     TestForeignFilterMatchesNothing)
//
// # Caveats
//
// Everything is kept in memory and ends with the process. Nothing limits how long
// a started child may run: cancel it. A status, trigger or reason that is marked as
// reserved does not occur yet. On the wire a notification comes at least
// once: a receiver that can't tell whether an earlier one arrived must look at
// (task, run), or the Notifier be a [ReceiptChecker].
// A child in this process that ignores its context can't be stopped
// by anybody; it is listed until it returns.
//
// The package starts goroutines only while there is work, installs no signal
// handler, never exits the process and prints nothing.
package subagent
