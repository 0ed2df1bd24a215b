#!/usr/bin/env bash
# Runs the tests, layer by layer. The last line counts; what could not be tested is named above it.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$ROOT/target
export CARGO_TARGET_DIR=$OUT
cd "$ROOT"
# shellcheck source=scripts/say.sh
source "$ROOT/scripts/say.sh"
# shellcheck source=scripts/tools.sh
source "$ROOT/scripts/tools.sh"
# shellcheck source=scripts/images.sh
source "$ROOT/scripts/images.sh"
# shellcheck source=scripts/cluster.sh
source "$ROOT/scripts/cluster.sh"
# shellcheck source=scripts/layers.sh
source "$ROOT/scripts/layers.sh"

SKIPPED=$OUT/test-skipped
KEEP=no

usage() {
  cat <<'TEXT'
usage: ./test.sh [--keep] [check | unit | it | e2e | all | faults]...    default: all
  check    format, lints, each crate alone, docs, generated files, licences, shell scripts
  unit     everything that needs no cluster, and the runner as a process
  it       against a real API server (root: a local cluster named "test")
  e2e      the images on real nodes, and what happens when things break (root: the same cluster)
  all      check, unit, it, e2e
  faults   the exhaustive tests that the others leave out (root; long)
  --keep   leaves the cluster "test" up
TEXT
}

main() {
  local layers=() layer
  for layer in "$@"; do
    case $layer in
      --keep) KEEP=yes ;;
      check | unit | it | e2e | faults) layers+=("$layer") ;;
      all) layers+=(check unit it e2e) ;;
      -h | --help)
        usage
        return
        ;;
      *)
        usage >&2
        exit 2
        ;;
    esac
  done
  ((${#layers[@]} > 0)) || layers=(check unit it e2e)
  mkdir -p "$OUT/logs"
  : >"$SKIPPED"
  rm -f "$TEST_CLUSTER_STARTED"
  trap take_test_cluster_down EXIT
  run_layers "${layers[@]}"
}

run_layers() {
  local layer code passed=() failed=()
  for layer in "$@"; do
    if [[ $layer == @(it|e2e|faults) ]] && ! is_root; then
      skip "$layer" "needs root"
      continue
    fi
    printf '\n== %s\n' "$layer"
    # In a condition bash would go on after an error inside; so the layer is a plain command, and its code is read.
    set +e
    (
      set -e
      "layer_$layer"
    )
    code=$?
    set -e
    if ((code == 0)); then passed+=("$layer"); else failed+=("$layer"); fi
  done
  summary
}

# skip WHAT WHY
skip() { printf '%s: %s\n' "$1" "$2" >>"$SKIPPED"; }

# Reads `passed` and `failed` of its caller.
summary() {
  printf '\n'
  sed 's/^/skipped: /' "$SKIPPED"
  if ((${#failed[@]} > 0)); then printf 'failed: %s\n' "${failed[*]}"; fi
  take_test_cluster_down
  printf 'test.sh: %d passed, %d failed, %d skipped\n' "${#passed[@]}" "${#failed[@]}" "$(wc -l <"$SKIPPED")"
  ((${#failed[@]} == 0))
}

main "$@"
