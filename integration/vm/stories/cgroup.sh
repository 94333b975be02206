#!/bin/bash
# The tests of package cgroup that need cgroup v2 alone: our own parent group, controllers handed down, OOM events.
set -euo pipefail
./cgroup.test -test.v | grep -vE '^(=== |\s+--- PASS)'
