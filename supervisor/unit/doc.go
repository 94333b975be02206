// Package unit answers one question: what does this unit file mean, or where
// exactly is it wrong?
//
// Parse reads a file's text and gives a Unit: every default filled in, every
// short form resolved, env files read. It is strict. An unknown key, a wrong
// type, a key without a value, a parameter that is not set: each is an Error
// with file, line and column, and all of a file's errors come at once. A key
// that is designed but not built says so.
//
// The package reads no file and knows no host: what a unit file refers to is
// asked for through Options.ReadFile. It does not check what only a host knows,
// such as whether an image or a unit of depends_on exists.
//
// Read first: Unit, then Parse, then unitTable in keys.go. That table and its
// sub-tables are the only list of keys: the parser, the near-miss hints, "not
// supported yet" and Reference are all made of it. FromRun makes a unit of the
// flags of `ctl run` with the same parsers of short forms.
//
// Invariants:
//
//   - a Unit's JSON is its identity: equal units have equal bytes, whatever
//     form their files were written in. Lists whose order means nothing are
//     sorted;
//   - an error always has a position, and a Unit is returned without error or
//     not at all;
//   - no input makes Parse panic or take more than a moment.
package unit
