// Package opencode runs child sessions in an opencode server.
package opencode
