#!/usr/bin/env bash
# Tries the model test on mutations of the planner: mutate.sh [NN]... Every file of mutations/ is applied to a copy of the tree
# and must be caught. Says for each the seed and the check that caught it. Ends with 1 if one was missed or does not apply.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(git -C "$HERE" rev-parse --show-toplevel)
TREE=$ROOT/target/mutations/tree
OUT=$ROOT/target/mutations/log
export CARGO_TARGET_DIR=$ROOT/target/mutations/build

main() {
  local patch missed=0
  copy_tree
  mkdir -p "$OUT"
  printf 'building without a mutation\n'
  try none || {
    tail -n 20 "$OUT/none"
    printf 'the test fails without a mutation\n'
    return 1
  }
  for patch in "$HERE"/mutations/*.patch; do
    if (($# == 0)) || [[ " $* " == *" $(basename "$patch" | cut -d- -f1) "* ]]; then
      one "$patch" || missed=$((missed + 1))
    fi
  done
  printf '%d missed\n' "$missed"
  ((missed == 0))
}

# What git knows and what is new, without what is ignored.
copy_tree() {
  rm -rf "$TREE"
  mkdir -p "$TREE"
  git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
    tar -C "$ROOT" --null --files-from=- --create --ignore-failed-read --file=- | tar -C "$TREE" --extract --file=-
}

one() {
  local patch=$1 name code=0
  name=$(basename "$patch" .patch)
  if ! in_tree git apply "$patch" 2>"$OUT/$name"; then
    printf '%-50s does not apply: see %s\n' "$name" "$OUT/$name"
    return 1
  fi
  if try "$name"; then
    printf '%-50s MISSED\n' "$name"
    code=1
  elif grep -q '^error' "$OUT/$name" && ! grep -q '^wrong: ' "$OUT/$name"; then
    printf '%-50s does not build: see %s\n' "$name" "$OUT/$name"
    code=1
  else
    printf '%-50s caught by %s: %s\n' "$name" "$(grep -o 'seed [0-9]* fails' "$OUT/$name" | head -n 1)" \
      "$(grep '^wrong: ' "$OUT/$name" | head -n 1 | cut -c 8-108)"
  fi
  in_tree git apply --reverse "$patch"
  return $code
}

# The copy is no part of the repository that it lies in.
in_tree() { (cd "$TREE" && GIT_CEILING_DIRECTORIES=$(dirname "$TREE") "$@"); }

try() {
  (cd "$TREE" && nice -n 10 cargo test --quiet --package scriptrunner-core --test model --locked) >"$OUT/$1" 2>&1
}

main "$@"
