package subagent

func (p *MailboxPolicy) render(n Notification) string { return "x" }
func Render(n Notification) string                    { return "x" }
