# The tools that a step needs: checked before it, installed as root on Debian, named elsewhere. Sourced.
# shellcheck shell=bash

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [[ $(id -u) == 0 ]]; }

can_install() { is_root && [[ -e /etc/debian_version ]] && have apt-get; }

# need_packages TOOL=PACKAGE...: each TOOL, out of the Debian package PACKAGE where it is missing.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin have "${pair%%=*}" || missing+=("${pair#*=}")
  done
  ((${#missing[@]} > 0)) || return 0
  can_install || fail "not installed: ${missing[*]} (names of the Debian packages)" \
    "install them and run this again; as root on Debian this script does it by itself"
  step "installing ${missing[*]}"
  quietly "$OUT/logs/apt.log" apt-get update || note "apt-get update failed; going on with the lists that are there"
  DEBIAN_FRONTEND=noninteractive quietly "$OUT/logs/apt.log" apt-get install -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]}" "install them by hand and run this again"
}

need_rust() {
  [[ $(uname -sm) == "Linux x86_64" ]] || fail "this is $(uname -sm); only Linux on x86_64 is supported"
  have cargo || fail "Rust is missing" "install it from https://rustup.rs; rust-toolchain.toml picks the version"
  need_packages cc=build-essential
}

# The local cluster's Kubernetes is built from its Go modules.
need_go() {
  have go || fail "Go is missing" "install Go 1.26 or newer from https://go.dev/dl and put it on PATH"
  local version
  version=$(go env GOVERSION)
  version=${version#go}
  local major=${version%%.*} minor=${version#*.}
  minor=${minor%%[!0-9]*}
  ((major > 1 || (major == 1 && minor >= 26))) ||
    fail "Go $version is too old" "install Go 1.26 or newer from https://go.dev/dl and put it first on PATH"
}

# Nodes of the local cluster are sandboxes that only root can make.
need_local_cluster_tools() {
  is_root || fail "no minikube or kind cluster was found, and the local cluster needs root" \
    "start minikube or kind, or name your cluster with --current-context, or run this as root"
  need_go
  need_packages runc=runc nft=nftables iptables=iptables ip=iproute2 nsenter=util-linux mount=mount
}
