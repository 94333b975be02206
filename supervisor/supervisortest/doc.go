// Package supervisortest has stand-ins for what a supervisor acts on: a keeper
// with scripted containers, a network that only keeps books, and an image
// store without bytes.
//
// They keep what the real ones promise and no more: a failed start leaves
// nothing, an exit is reported once, removing what is not there is no error.
// They outlive a supervisor as the keeper outlives the daemon, so that a test
// can end one and begin another on the same world. All time is package time's,
// for use in testing/synctest.
//
// Read first: World.
package supervisortest
