#!/usr/bin/env bash
# Runs build.sh in a copy of the repository with stand-ins for cargo, docker, minikube, kind and kubectl that record how
# they are called, and looks at the records: where images go, and which cluster is spoken to.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
COPY=$WORK/copy
RECORD=$WORK/record
export RECORD

main() {
  mkdir -p "$COPY" "$WORK/bin"
  cp -r "$ROOT"/{build.sh,scripts,crds,deploy,samples,Cargo.toml,Dockerfile.operator,Dockerfile.runner} "$COPY"
  touch "$COPY/Cargo.lock"
  mkdir -p "$COPY"/{api,bench,core,operator,runner-image,testcluster}
  make_stand_ins
  minikube_is_used_when_it_runs
  a_minikube_that_is_stopped_is_left_alone
  kind_is_used_without_minikube
  the_current_context_is_used_when_told_so
  unchanged_images_are_not_built_again
  a_failing_operator_is_shown
  images_stops_before_any_cluster
  bills_of_materials_are_written_beside_the_archives
  without_their_tool_bills_of_materials_are_skipped_and_named
  an_unknown_option_is_refused
  printf 'build.sh with stand-ins: all as expected\n'
}

# stand_in NAME: records its arguments, then runs the lines given on standard input.
stand_in() {
  {
    # shellcheck disable=SC2016 # the stand-in expands it
    printf '#!/bin/bash\necho %s "$@" >>"$RECORD"\n' "$1"
    cat
  } >"$WORK/bin/$1"
  chmod +x "$WORK/bin/$1"
}

make_stand_ins() {
  # As the real tool does, whose name is looked for: a file beside every Cargo.toml.
  stand_in cargo <<'SH'
if [[ $1 == cyclonedx ]]; then
  for folder in */; do echo bill >"$folder/sbom.json"; done
  exit
fi
mkdir -p "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release"
for name in operator runner; do echo "$name" >"$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release/scriptrunner-$name"; done
SH
  stand_in docker <<'SH'
if [[ $1 == save ]]; then echo archive >"$3"; fi
SH
  stand_in minikube <<'SH'
[[ $1 != status || -z $MINIKUBE_STATE ]] ||
  echo '[{"Name":"box","Host":"'"$MINIKUBE_STATE"'","Kubelet":"x","APIServer":"'"$MINIKUBE_STATE"'"},{"Name":"box-m02","Host":"Running"}]'
SH
  stand_in kind <<'SH'
[[ $* != "get clusters" ]] || printf '%s' "$KIND_CLUSTERS"
SH
  stand_in kubectl <<'SH'
case "$*" in
  *current-context) echo mine ;;
  *"rollout status"*) exit "$ROLLOUT" ;;
  *"apply -f -") cat >/dev/null ;;
esac
SH
}

# build ARGUMENT...: build.sh among the stand-ins; sets CODE. State of the world: MINIKUBE_STATE, KIND_CLUSTERS, ROLLOUT.
build() {
  : >"$RECORD"
  CODE=0
  env PATH="$WORK/bin:$PATH" MINIKUBE_STATE="${MINIKUBE_STATE:-}" KIND_CLUSTERS="${KIND_CLUSTERS:-}" \
    ROLLOUT="${ROLLOUT:-0}" "$COPY/build.sh" "$@" >"$WORK/output" 2>&1 || CODE=$?
}

minikube_is_used_when_it_runs() {
  MINIKUBE_STATE=Running KIND_CLUSTERS=$'other\n' build
  succeeded
  called "minikube --profile box image load $COPY/target/images/operator.tar"
  called "minikube --profile box image load $COPY/target/images/runner.tar"
  called "kubectl --context box apply -f $COPY/crds"
  called "kubectl --context box apply -f $COPY/deploy/20-policies.yaml"
  called "kubectl --context box apply -f -"
  called "kubectl --context box apply -f $COPY/samples/hello.yaml"
  not_called "kind load"
  every_kubectl_call_names "--context box"
}

a_minikube_that_is_stopped_is_left_alone() {
  MINIKUBE_STATE=Stopped KIND_CLUSTERS=$'first\nsecond\n' build
  succeeded
  not_called "image load"
  called "kind load image-archive --name first $COPY/target/images/operator.tar"
}

kind_is_used_without_minikube() {
  KIND_CLUSTERS=$'first\nsecond\n' build
  succeeded
  called "kind load image-archive --name first $COPY/target/images/operator.tar"
  called "kind load image-archive --name first $COPY/target/images/runner.tar"
  every_kubectl_call_names "--context kind-first"
}

the_current_context_is_used_when_told_so() {
  MINIKUBE_STATE=Running build --current-context
  succeeded
  not_called "image load"
  not_called "--context"
  called "kubectl apply -f $COPY/samples/hello.yaml"
}

unchanged_images_are_not_built_again() {
  MINIKUBE_STATE=Running build
  not_called "docker build"
  echo "# changed" >>"$COPY/Dockerfile.operator"
  MINIKUBE_STATE=Running build
  called "docker build --file $COPY/Dockerfile.operator --tag docker.io/scriptrunner/operator"
  not_called "docker build --file $COPY/Dockerfile.runner"
}

a_failing_operator_is_shown() {
  MINIKUBE_STATE=Running ROLLOUT=1 build
  ((CODE != 0)) || wrong "build.sh succeeded with an operator that is not ready"
  called "kubectl --context box --namespace scriptrunner-system logs deployment/scriptrunner-operator"
  not_called "hello.yaml"
}

images_stops_before_any_cluster() {
  MINIKUBE_STATE=Running build images
  succeeded
  [[ $(tail -n 1 "$WORK/output") == "$COPY/target/images/runner.tar" ]] || wrong "the archives are not printed"
  not_called "kubectl"
}

bills_of_materials_are_written_beside_the_archives() {
  stand_in cargo-cyclonedx </dev/null
  build images
  succeeded
  [[ -s $COPY/target/images/operator.cdx.json && -s $COPY/target/images/runner.cdx.json ]] || wrong "no bills of materials"
  [[ -z $(find "$COPY" -name sbom.json) ]] || wrong "bills of materials are left beside the sources"
}

without_their_tool_bills_of_materials_are_skipped_and_named() {
  rm "$WORK/bin/cargo-cyclonedx" "$COPY"/target/images/*.cdx.json
  # Whoever runs this may have the real one.
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin build images
  succeeded
  not_called "cyclonedx"
  grep --quiet "skipped: the bills of materials; cargo-cyclonedx is not installed" "$WORK/output" || wrong "it is not named"
}

an_unknown_option_is_refused() {
  build --nonsense
  ((CODE == 2)) || wrong "an unknown option ended with $CODE"
  not_called "cargo"
}

succeeded() { ((CODE == 0)) || wrong "build.sh ended with $CODE"; }

called() { grep --quiet --fixed-strings -e "$1" "$RECORD" || wrong "not called: $1"; }

not_called() { ! grep --quiet --fixed-strings -e "$1" "$RECORD" || wrong "called: $1"; }

every_kubectl_call_names() {
  ! grep '^kubectl' "$RECORD" | grep --quiet --invert-match --fixed-strings -e "$1" || wrong "kubectl without $1"
}

wrong() {
  printf '%s: %s\nwhat build.sh said:\n' "${FUNCNAME[2]}" "$1" >&2
  cat "$WORK/output" >&2
  printf 'what was called:\n' >&2
  cat "$RECORD" >&2
  exit 1
}

main
