#!/usr/bin/env bash
# Builds ScriptRunner, installs it into a cluster, and runs a first script on every node.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$ROOT/target
export CARGO_TARGET_DIR=$OUT
# shellcheck source=scripts/say.sh
source "$ROOT/scripts/say.sh"
# shellcheck source=scripts/tools.sh
source "$ROOT/scripts/tools.sh"
# shellcheck source=scripts/images.sh
source "$ROOT/scripts/images.sh"
# shellcheck source=scripts/cluster.sh
source "$ROOT/scripts/cluster.sh"

usage() {
  cat <<'TEXT'
usage: ./build.sh [--local | --current-context]    build, install, run samples/hello.yaml
       ./build.sh images                           build the binaries and images only, and their bills of materials;
                                                   print the archives
       ./build.sh down                             take the local cluster down

Without an option a running minikube is used, else a kind cluster, else a local cluster made on this machine.
  --local             the local cluster, whatever else runs (needs root)
  --current-context   the cluster of kubectl's current context; its nodes must find the images by themselves
Environment: BASE, the runner's base image; default: a public Python image, or a Debian base where no registry answers
TEXT
}

main() {
  local wish=any
  case ${1:-} in
    "") ;;
    --local) wish=local ;;
    --current-context) wish=current ;;
    images)
      print_images
      return
      ;;
    down)
      take_down
      return
      ;;
    -h | --help)
      usage
      return
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  need_rust
  [[ $wish != current ]] || have kubectl || fail "kubectl is missing" "install it, or leave out --current-context"
  build_images
  choose_cluster "$wish"
  load_images
  install_scriptrunner
  run_hello
  say_goodbye
}

print_images() {
  need_rust
  build_images
  write_sboms
  printf '%s\n' "$IMAGES/operator.tar" "$IMAGES/runner.tar"
}

take_down() {
  [[ -x $ROOT/$BINARIES/testcluster ]] || fail "there is no local cluster's program in $BINARIES" \
    "build it: cargo build --release -p scriptrunner-testcluster"
  testcluster down --name "$LOCAL_CLUSTER"
}

main "$@"
