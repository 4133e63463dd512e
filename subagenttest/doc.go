// Package subagenttest helps to test what is built with package subagent.
//
// [Client] is a scripted fake of an agent host. Its script decides, call by call,
// what goes wrong: errors, hangs, panics, sessions that were made although the
// call failed. It watches whether the manager keeps its side of the contract,
// counts sessions, and fails the test if a turn is left running. [Parent] is a
// receiver of notifications with a ledger of its own.
//
// [TestClient] is the conformance suite that every [subagent.SessionClient] should
// pass.
//
// All of it works inside a testing/synctest bubble.
package subagenttest
