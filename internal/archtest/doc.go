// Package archtest holds the rules of DESIGN.md that a program can hold, as
// tests. It contains no code of its own.
//
// A rule is a function from a source tree to what is wrong in it. It judges
// this module, and it judges a small tree in memory that keeps every rule
// (good_test.go) and the same tree with one thing broken: a rule that does not
// find what was broken is itself a failure.
//
// Trees are parsed, not type-checked, so that a broken tree can be written in
// three lines. Where that makes a rule a guess, its comment says what it guesses
// by. To add a rule, append to rules in archtest_test.go.
package archtest
