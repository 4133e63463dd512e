package opencode

import (
	"cmp"
	"errors"
	"strings"

	"github.com/seed-48fd9ae4/subagent"
)

// statusClasses are the classes of the HTTP statuses with which a model's provider
// refuses a call.
var statusClasses = map[int]subagent.Class{
	400: subagent.ClassInvalid,
	401: subagent.ClassAuth,
	402: subagent.ClassQuota,
	403: subagent.ClassPermission,
	404: subagent.ClassModelNotFound,
	408: subagent.ClassUnavailable,
	413: subagent.ClassContextLength,
	422: subagent.ClassInvalid,
	429: subagent.ClassRateLimited,
	500: subagent.ClassOverloaded,
	502: subagent.ClassOverloaded,
	503: subagent.ClassOverloaded,
	504: subagent.ClassOverloaded,
	529: subagent.ClassOverloaded,
}

// replyClass is the class of a status with which the server itself refuses a call.
func replyClass(status int) subagent.Class {
	class := statusClasses[status]
	switch {
	case status/100 == 5:
		return subagent.ClassUnavailable
	case class == subagent.ClassUnknown, class == subagent.ClassModelNotFound:
		return subagent.ClassInvalid
	}
	return class
}

// errorClasses are the classes of the server's named errors.
var errorClasses = map[string]subagent.Class{
	"ProviderAuthError":    subagent.ClassAuth,
	"MessageAbortedError":  subagent.ClassAborted,
	"ContextOverflowError": subagent.ClassContextLength,
	"ContentFilterError":   subagent.ClassInvalid,
}

// wireError is how the server tells of an error, in a reply, a message or an event.
type wireError struct {
	Name string `json:"name"`
	Data struct {
		Message    string `json:"message"`
		StatusCode int    `json:"statusCode"`
	} `json:"data"`
}

// text is what people read, without the server's stack.
func (e *wireError) text() string {
	text, _, _ := strings.Cut(e.Data.Message, "\n    at ")
	return cmp.Or(text, e.Name)
}

func (e *wireError) class() subagent.Class {
	switch text := e.Data.Message; {
	case errorClasses[e.Name] != "":
		return errorClasses[e.Name]
	case e.Data.StatusCode != 0:
		return statusClasses[e.Data.StatusCode]
	case strings.Contains(text, "Agent not found"):
		return subagent.ClassAgentNotFound
	case strings.Contains(text, "Model not found"):
		return subagent.ClassModelNotFound
	}
	return subagent.ClassUnknown
}

// turnError is an error of a turn. Its text is the model provider's, cut and cleaned;
// headers and bodies that come with it are left behind.
func (a *api) turnError(id subagent.SessionID, e *wireError) *subagent.SessionError {
	return &subagent.SessionError{Op: "prompt", Session: id, Class: e.class(), Err: errors.New(a.clean(e.text()))}
}
