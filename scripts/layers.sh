# The layers of test.sh. Each runs in a subshell of its own and fails at its first error. Sourced.
# shellcheck shell=bash

TEST_CLUSTER="test"
TEST_CLUSTER_STARTED=$OUT/test-cluster-started

layer_check() {
  need_rust
  local before package
  before=$(state_of_generated_files)
  step "format"
  cargo fmt --all --check
  step "lints"
  cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
  # Built together, a crate may use what only its neighbour asked for.
  for package in $(packages); do
    step "$package alone"
    cargo check --quiet --locked --package "$package"
  done
  step "docs"
  # Private items are documented too, so a link to one is good.
  RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
    cargo doc --quiet --workspace --no-deps --document-private-items --locked
  step "generated files"
  cargo run --quiet --locked --package scriptrunner-operator --bin gen -- --check
  check_licences
  check_scripts
  [[ $(state_of_generated_files) == "$before" ]] ||
    fail "this run changed generated files" "see git diff, and commit what belongs"
}

packages() { cargo tree --quiet --workspace --depth 0 --prefix none | awk 'NF {print $1}' | sort -u; }

state_of_generated_files() { git status --porcelain -- crds deploy Cargo.lock && git diff -- crds deploy Cargo.lock; }

check_licences() {
  if ! have cargo-deny; then
    skip "check of licences, bans and sources" "cargo-deny is not installed (cargo install cargo-deny)"
    return
  fi
  step "licences, bans, sources"
  cargo deny --workspace check bans licenses sources
}

check_scripts() {
  # A script that nobody can check is a reason to say so, not to stop.
  if ! have shellcheck && ! can_install; then
    skip "check of shell scripts" "shellcheck is not installed"
    return
  fi
  need_packages shellcheck=shellcheck
  step "shell scripts"
  shellcheck --external-sources build.sh test.sh .ci/run scripts/*.sh tests/*.sh core/tests/model/*.sh
}

layer_unit() {
  need_rust
  # The same cases in every run, so that what turns red is what was changed. `./test.sh faults` draws new ones.
  local -x PROPTEST_RNG_SEED=1
  step "build.sh with stand-ins"
  tests/build_sh.sh
  step "libraries and programs"
  cargo test --quiet --workspace --lib --bins --locked
  step "the model of the planner"
  cargo test --quiet --package scriptrunner-core --test model --locked
  step "the runner as a process"
  have python3 || fail "python3 is missing" "install it; the runner's tests run Python scripts"
  have uv || [[ -n ${SCRIPTRUNNER_TEST_UV:-} ]] ||
    skip "inline script metadata with the real uv" "uv is not on PATH (pip install uv); stand-ins are used, and the images have it"
  is_root || skip "packages of the operating system, by stand-ins" "needs root"
  cargo test --quiet --package scriptrunner-runner --tests --locked
}

layer_it() {
  start_test_cluster
  install_without_operator
  # Those of faults need images, and the cluster to themselves. Those that break the policies need that too.
  run_cluster_tests scriptrunner-operator it --skip faults:: --skip alone::
  run_cluster_tests scriptrunner-operator it alone::
  step "the local cluster itself"
  cargo test --quiet --package scriptrunner-testcluster --test cluster --locked
}

# An operator in the cluster would do the work that tests want to see done by theirs.
install_without_operator() {
  "${KUBECTL[@]}" delete --ignore-not-found --namespace scriptrunner-system deployment/scriptrunner-operator
  apply_definitions
}

# The operator as it is built, with shorter times: until the pod of an endless repetition hands over, until a runner that has not
# ended is given up, until a failed node is tried again, and until it looks at the admission policies again.
install_for_tests() {
  # shellcheck disable=SC2034 # read by scripts/cluster.sh
  MORE_OPERATOR_ENVIRONMENT=',{"name":"SCRIPTRUNNER_HANDOVER_SECONDS","value":"20"},
    {"name":"SCRIPTRUNNER_HUNG_AFTER_SECONDS","value":"20"},{"name":"SCRIPTRUNNER_RETRY_SECONDS","value":"1"},
    {"name":"SCRIPTRUNNER_POLICY_PROOF_SECONDS","value":"2"}'
  install_scriptrunner
}

layer_e2e() {
  # What tests pack into images and packages of their own.
  need_packages busybox=busybox-static dpkg-deb=dpkg rpmbuild=rpm createrepo_c=createrepo-c
  start_test_cluster
  build_images
  load_images
  install_without_operator
  run_cluster_tests scriptrunner-operator it faults::
  install_for_tests
  run_cluster_tests scriptrunner-testcluster e2e
  run_tests_that_need_the_outside
  # Of all that the operator has done by now.
  run_cluster_tests scriptrunner-operator it --ignored audit::
}

run_tests_that_need_the_outside() {
  if build_dnf_image; then
    testcluster load-image --name "$TEST_CLUSTER" "$IMAGES/dnf.tar"
    run_cluster_tests scriptrunner-testcluster e2e --ignored outside::packages
  else
    skip "packages by the real dnf" "an image with dnf could not be built ($OUT/logs)"
  fi
  if curl --silent --fail --max-time 20 --output /dev/null https://pypi.org/simple/six/; then
    run_cluster_tests scriptrunner-testcluster e2e --ignored outside::a_real_package
  else
    skip "a real package from the real index" "https://pypi.org cannot be reached"
  fi
}

layer_faults() {
  start_test_cluster
  build_images
  load_images
  install_without_operator
  run_cluster_tests scriptrunner-operator it --ignored faults::
  install_for_tests
  run_cluster_tests scriptrunner-testcluster e2e --ignored twenty_kills
  step "exhaustive properties"
  cargo test --quiet --release --package scriptrunner-core --package scriptrunner-api --locked -- --ignored exhaustive
  step "ten minutes of junk"
  # Not in release: there numbers that overflow wrap in silence.
  cargo test --quiet --package scriptrunner-operator --lib --locked -- --ignored --nocapture exhaustive_junk
}

# Also for a cluster that an earlier layer has started.
start_test_cluster() {
  # shellcheck disable=SC2034 # read by scripts/cluster.sh
  CLUSTER=local
  : >"$TEST_CLUSTER_STARTED"
  start_local_cluster "$TEST_CLUSTER" 3 --node-monitor-grace-period-seconds 20
  KUBECONFIG=$(testcluster path --name "$TEST_CLUSTER" kubeconfig)
  PATH=$(dirname "${KUBECTL[0]}"):$PATH
  # Tests take the cluster's name from here, never a kubeconfig.
  SCRIPTRUNNER_TEST_CLUSTER=$TEST_CLUSTER
  export KUBECONFIG PATH SCRIPTRUNNER_TEST_CLUSTER
}

# run_cluster_tests PACKAGE TEST [ARGUMENT]...: one test at a time would waste the waiting; four share two cores well.
run_cluster_tests() {
  local package=$1 test=$2
  shift 2
  step "$package: $test"
  cargo test --package "$package" --test "$test" --locked -- --test-threads=4 "$@"
}

take_test_cluster_down() {
  if [[ $KEEP == yes || ! -e $TEST_CLUSTER_STARTED ]]; then return; fi
  rm -f "$TEST_CLUSTER_STARTED"
  testcluster down --name "$TEST_CLUSTER" >"$OUT/logs/down.log" 2>&1 ||
    printf 'the cluster %s is not down: see %s\n' "$TEST_CLUSTER" "$OUT/logs/down.log" >&2
}
