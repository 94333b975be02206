#!/bin/bash
# The tests of package cgroup that need cgroup v2 alone: our own parent group, controllers handed down, OOM events.
set -euo pipefail
./cgroup.test -test.v >tests.out 2>&1 || { cat tests.out; exit 1; }
grep -vE '^(=== |\s+--- PASS)' tests.out
if grep 'needs cgroup v2 alone' tests.out; then echo "FAIL: this is what they need" >&2; exit 1; fi
