# What build.sh and test.sh say: one line per step, and failures that name the next move. Sourced.
# shellcheck shell=bash

step() { printf '==> %s\n' "$*"; }

note() { printf '    %s\n' "$*"; }

# fail WHAT [WHAT TO DO]...
fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  if (($# > 0)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}

# quietly LOG COMMAND...: runs it with its output in LOG, and shows the end of LOG only if it fails.
quietly() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 && return
  local code=$?
  printf 'failed: %s\n' "$*" >&2
  tail -n 30 "$log" >&2
  printf '(all of it: %s)\n' "$log" >&2
  return "$code"
}
