# A cluster, and ScriptRunner in it: find one, load the images, install, run the first sample. Sourced.
# shellcheck shell=bash

LOCAL_CLUSTER=scriptrunner

# choose_cluster WISH: sets CLUSTER (minikube, kind, current, local), CLUSTER_NAME, and KUBECTL as a command.
choose_cluster() {
  CLUSTER=$1
  [[ $CLUSTER != any ]] || CLUSTER=$(find_cluster)
  KUBECTL=(kubectl)
  case $CLUSTER in
    minikube)
      CLUSTER_NAME=$(minikube_name)
      KUBECTL+=(--context "$CLUSTER_NAME")
      ;;
    kind)
      CLUSTER_NAME=$(kind_name)
      KUBECTL+=(--context "kind-$CLUSTER_NAME")
      ;;
    current)
      CLUSTER_NAME=$(kubectl config current-context) ||
        fail "kubectl has no current context" "choose one with kubectl config use-context, or leave out --current-context"
      ;;
    local) start_local_cluster "$LOCAL_CLUSTER" 3 --default ;;
  esac
  step "using the $CLUSTER cluster $CLUSTER_NAME"
}

find_cluster() {
  if [[ -n $(minikube_name) ]]; then
    echo minikube
  elif [[ -n $(kind_name) ]]; then
    echo kind
  else
    echo local
  fi
}

# The running minikube, nothing if there is none.
minikube_name() {
  have minikube && have kubectl || return 0
  local running='"Name":"([^"]*)","Host":"Running"[^}]*"APIServer":"Running"'
  [[ ! $(minikube status --output json 2>/dev/null) =~ $running ]] || echo "${BASH_REMATCH[1]}"
}

# The first kind cluster, nothing if there is none.
kind_name() {
  have kind && have kubectl || return 0
  kind get clusters 2>/dev/null | head -n 1
}

# start_local_cluster NAME NODES [ARGUMENT]...: also sets KUBECTL. Harmless when it is up.
start_local_cluster() {
  CLUSTER_NAME=$1
  local nodes=$2
  shift 2
  need_local_cluster_tools
  step "building the local cluster's program"
  (cd "$ROOT" && cargo build --quiet --release --locked --package scriptrunner-testcluster) ||
    fail "the local cluster's program could not be built" "the compiler's message is above"
  step "starting $nodes local nodes (the first time Kubernetes is built: about ten minutes)"
  testcluster up --name "$CLUSTER_NAME" --nodes "$nodes" "$@" ||
    fail "the local cluster did not start" "take it down with ./build.sh down and try again"
  KUBECTL=("$(testcluster path --name "$CLUSTER_NAME" kubectl)"
    --kubeconfig "$(testcluster path --name "$CLUSTER_NAME" kubeconfig)")
}

testcluster() { (cd "$ROOT" && "$ROOT/$BINARIES/testcluster" "$@"); }

load_images() {
  step "loading the images"
  case $CLUSTER in
    minikube) for_each_archive minikube --profile "$CLUSTER_NAME" image load ;;
    kind) for_each_archive kind load image-archive --name "$CLUSTER_NAME" ;;
    local) testcluster load-image --name "$CLUSTER_NAME" "$IMAGES/operator.tar" "$IMAGES/runner.tar" ;;
    current) note "nodes of this cluster must find ${OPERATOR_IMAGE#docker.io/} and ${RUNNER_IMAGE#docker.io/} by themselves; archives: $IMAGES" ;;
  esac || fail "the images could not be loaded into the $CLUSTER cluster $CLUSTER_NAME"
}

for_each_archive() {
  "$@" "$IMAGES/operator.tar" && "$@" "$IMAGES/runner.tar"
}

# Everything of crds/ and deploy/ but the operator itself.
apply_definitions() {
  "${KUBECTL[@]}" apply -f "$ROOT/crds"
  "${KUBECTL[@]}" wait --for=condition=Established --timeout=60s -f "$ROOT/crds" >/dev/null
  local manifest
  for manifest in "$ROOT"/deploy/[012]*.yaml; do "${KUBECTL[@]}" apply -f "$manifest"; done
  # What somebody, or a test that was killed, has added to one is nothing that an apply takes away.
  "${KUBECTL[@]}" replace --save-config -f "$ROOT/deploy/20-policies.yaml"
  # Without the mutating half nobody could write a privileged spec by the usual means.
  if serves_mutating_policies; then
    "${KUBECTL[@]}" apply -f "$ROOT/deploy/optional/requested-by.yaml"
    "${KUBECTL[@]}" replace --save-config -f "$ROOT/deploy/optional/requested-by.yaml"
  fi
}

# Kubernetes 1.36 and newer do.
serves_mutating_policies() {
  local served
  served=$("${KUBECTL[@]}" get --raw /apis/admissionregistration.k8s.io/v1) ||
    fail "the API server does not say which kinds of policies it serves" "kubectl's message is above"
  [[ $served == *'"mutatingadmissionpolicies"'* ]]
}

# install_scriptrunner: crds/ and deploy/, and waits until the operator is ready.
install_scriptrunner() {
  step "installing ScriptRunner"
  apply_definitions
  "${KUBECTL[@]}" patch --local -f "$ROOT/deploy/30-operator.yaml" -p "$(deployment_patch)" -o yaml |
    "${KUBECTL[@]}" apply -f -
  "${KUBECTL[@]}" --namespace scriptrunner-system rollout status deployment/scriptrunner-operator --timeout=180s ||
    operator_failed
}

# What the deployment needs here: new pods when the image has changed behind its name, and no limit of ephemeral storage
# where nodes cannot measure it.
# Tests add to it, for timers that they cannot wait for.
MORE_OPERATOR_ENVIRONMENT=
deployment_patch() {
  local digest environment='[]'
  digest=$(cat "$IMAGES/operator.tar.inputs")
  if [[ $CLUSTER == local ]]; then
    environment='[{"name":"SCRIPTRUNNER_DEFAULT_EPHEMERAL_STORAGE","value":""}'$MORE_OPERATOR_ENVIRONMENT']'
  fi
  printf '{"spec":{"template":{"metadata":{"annotations":{"scriptrunner.io/image":"%s"}},' "${digest:0:16}"
  printf '"spec":{"containers":[{"name":"operator","env":%s}]}}}}' "$environment"
}

operator_failed() {
  local system=("${KUBECTL[@]}" --namespace scriptrunner-system)
  "${system[@]}" get pods -o wide || true
  "${system[@]}" get events --sort-by=.lastTimestamp | tail -n 10 || true
  "${system[@]}" logs deployment/scriptrunner-operator --tail=20 || true
  fail "the operator is not ready" "its pods, events and log are above"
}

# run_hello: the first sample, and each node's answer.
run_hello() {
  step "running samples/hello.yaml on every node"
  "${KUBECTL[@]}" apply -f "$ROOT/samples/hello.yaml"
  if ! "${KUBECTL[@]}" wait --for=condition=Complete --timeout=300s scriptrunner/hello >/dev/null; then
    "${KUBECTL[@]}" get scriptrunner hello -o yaml || true
    fail "hello did not complete" "its conditions and nodes are above; the operator's log:" \
      "${KUBECTL[*]} -n scriptrunner-system logs deployment/scriptrunner-operator"
  fi
  "${KUBECTL[@]}" get scriptrunner hello
  step "what each node answered"
  # shellcheck disable=SC2016 # the template's variables are not the shell's
  "${KUBECTL[@]}" get scriptrunner hello -o go-template='{{range $name, $node := .status.nodes}}{{range .history}}{{if eq .run $node.run}}{{$name}}: {{.stdout}}{{end}}{{end}}{{end}}'
}

# What to type next.
say_goodbye() {
  step "done"
  if [[ $CLUSTER == local ]]; then
    note "export KUBECONFIG=$ROOT/.cluster/kubeconfig"
    note "kubectl of the same version: ${KUBECTL[0]}"
    note "take it down: ./build.sh down"
  fi
  note "more to try: samples/; every field: kubectl explain scriptrunner.spec"
}
