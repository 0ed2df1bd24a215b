# The two images: binaries, base, build, and archives under target/images/ that every cluster can load. Sourced.
# shellcheck shell=bash

VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
# As deploy/ names them, written out: some builders put localhost/ before a short name, and then no node finds the image.
OPERATOR_IMAGE=docker.io/scriptrunner/operator:$VERSION
RUNNER_IMAGE=docker.io/scriptrunner/runner:$VERSION
BINARIES=target/x86_64-unknown-linux-gnu/release
IMAGES=$OUT/images
DEBIAN_RELEASE=bookworm
DEBIAN_PACKAGES=python3,python3-pip,python3-venv,ca-certificates
DEBIAN_DOCKERFILE='FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
'
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/scriptrunner

build_binaries() {
  step "building the operator and the runner (static binaries)"
  (cd "$ROOT" && cargo build --quiet --release --locked --package scriptrunner-operator --package scriptrunner-runner \
    --bin scriptrunner-operator --bin scriptrunner-runner) ||
    fail "the binaries could not be built" "the compiler's message is above"
}

# Chooses BUILDER. The docker command is often there without a daemon, so it is asked, not looked for.
choose_builder() {
  if have docker && docker info >/dev/null 2>&1; then
    BUILDER=docker
  elif have podman && podman info >/dev/null 2>&1; then
    BUILDER=podman
  else
    need_packages buildah=buildah
    BUILDER=buildah
  fi
  step "building images with $BUILDER"
}

# buildah with a store of its own, so that it needs no set-up and leaves nothing outside target/.
run_buildah() {
  local driver=overlay
  # An overlay cannot lie on an overlay, which is what a container's root is; without root it needs more set-up.
  if ! is_root || [[ $(stat --file-system --format=%T "$OUT") == overlayfs ]]; then driver=vfs; fi
  buildah --root "$OUT/buildah/$driver" --runroot "$OUT/buildah/run" --storage-driver "$driver" "$@"
}

run_builder() {
  case $BUILDER in
    buildah) run_buildah "$@" ;;
    *) "$BUILDER" "$@" ;;
  esac
}

# build_image DOCKERFILE IMAGE CONTEXT [ARGUMENT]...
build_image() {
  local dockerfile=$1 image=$2 context=$3
  shift 3
  # chroot: works in containers and where no systemd runs.
  if [[ $BUILDER == buildah ]]; then set -- --isolation chroot "$@"; fi
  quietly "$(build_log "$image")" \
    run_builder build --file "$dockerfile" --tag "$image" "$@" "$context"
}

build_log() { printf '%s/logs/build-%s.log' "$OUT" "${1//[\/:]/-}"; }

# image_id IMAGE: its ID, nothing if it is not there.
image_id() {
  case $BUILDER in
    buildah) run_buildah images --quiet --no-trunc "$1" 2>/dev/null ;;
    *) "$BUILDER" image inspect --format '{{.Id}}' "$1" 2>/dev/null ;;
  esac || true
}

# Chooses BASE of the runner image: $BASE if given, else that of Dockerfile.runner, else Debian's own packages.
choose_base() {
  local debian seconds=120
  debian=localhost/scriptrunner-base:$DEBIAN_RELEASE-$(short_digest "$DEBIAN_PACKAGES $DEBIAN_DOCKERFILE")
  BASE=${BASE:-$(sed -n 's/^ARG BASE=//p' "$ROOT/Dockerfile.runner")}
  [[ -z $(image_id "$BASE") ]] || return 0
  # Where the other base has been made before, a registry is not waited for long.
  [[ -z $(image_id "$debian") ]] || seconds=15
  if pull_base "$seconds"; then
    [[ $BASE == *@sha256:* ]] || note "the base $BASE is what its tag means today; a release names it by digest (docs/supply.md)"
    return
  fi
  step "no image registry answers for $BASE: using a Debian base made with debootstrap"
  BASE=$debian
  [[ -n $(image_id "$BASE") ]] || make_debian_base
}

short_digest() { printf '%s' "$1" | sha256sum | cut -c 1-12; }

# pull_base SECONDS
pull_base() {
  local command=(pull --quiet "$BASE")
  case $BUILDER in
    # timeout runs programs only, so the function is written out.
    buildah) export -f run_buildah is_root && export OUT &&
      timeout "$1" bash -c 'run_buildah "$@"' buildah "${command[@]}" ;;
    *) timeout "$1" "$BUILDER" "${command[@]}" ;;
  esac >"$OUT/logs/pull.log" 2>&1
}

# The image $BASE out of an archive that is made once per release and list of packages.
make_debian_base() {
  local archive context=$OUT/base
  archive=$CACHE/base-$DEBIAN_RELEASE-$(short_digest "$DEBIAN_PACKAGES").tar
  [[ -e $archive ]] || make_debian_archive "$archive"
  rm -rf "$context"
  mkdir -p "$context"
  ln "$archive" "$context/base.tar" 2>/dev/null || cp "$archive" "$context/base.tar"
  printf '%s' "$DEBIAN_DOCKERFILE" >"$context/Dockerfile"
  build_image "$context/Dockerfile" "$BASE" "$context" || fail "the Debian base could not be made into an image"
  rm -rf "$context"
}

# make_debian_archive FILE: in a folder beside it, then one rename, so that FILE is whole or absent.
make_debian_archive() {
  is_root || fail "no image registry answers, and debootstrap needs root" \
    "make an image registry reachable, or name a base image with BASE=..., or run this as root"
  need_packages debootstrap=debootstrap
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock 9
  [[ ! -e $1 ]] || return 0
  step "making the Debian base (about a minute, kept in $CACHE)"
  discard_root "$1.root"
  quietly "$OUT/logs/debootstrap.log" env PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase \
    --include="$DEBIAN_PACKAGES" "$DEBIAN_RELEASE" "$1.root" ||
    fail "debootstrap failed" "check that a Debian mirror answers, or name a base image with BASE=..."
  rm -rf "$1.root"/var/cache/apt/archives/*.deb "$1.root"/var/lib/apt/lists/*
  tar --numeric-owner --one-file-system -C "$1.root" -cf "$1.new" .
  mv "$1.new" "$1"
  discard_root "$1.root"
  exec 9>&-
}

# discard_root FOLDER: an interrupted debootstrap leaves mounts behind.
discard_root() {
  umount "$1/proc" "$1/sys" 2>/dev/null || true
  rm -rf --one-file-system "$1"
}

# build_images [IMAGE NAME]: binaries, both images and their archives, each only if what goes in has changed.
build_images() {
  mkdir -p "$IMAGES" "$OUT/logs"
  build_binaries
  choose_builder
  choose_base
  build_archive operator "$OPERATOR_IMAGE" ""
  build_archive runner "$RUNNER_IMAGE" "$(image_id "$BASE")"
}

# build_archive NAME IMAGE BASE_ID: $IMAGES/NAME.tar, with the digest of its inputs beside it.
build_archive() {
  local name=$1 image=$2 archive=$IMAGES/$1.tar key
  key=$(input_digest "$name" "$3")
  if [[ -e $archive && $(cat "$archive.inputs" 2>/dev/null) == "$key" ]]; then
    note "$image is up to date"
    return
  fi
  step "building the image $image"
  rm -f "$archive.inputs" "$archive.new"
  INCOMPLETE=no
  "build_$name" "$image" || fail "the image $image could not be built" "the builder's message is above"
  save_image "$image" "$archive.new"
  mv "$archive.new" "$archive"
  # The next time something may answer that did not today.
  [[ $INCOMPLETE == yes ]] || printf '%s\n' "$key" >"$archive.inputs"
}

# input_digest NAME BASE_ID
input_digest() {
  {
    cat "$ROOT/Dockerfile.$1"
    sha256sum <"$ROOT/$BINARIES/scriptrunner-$1"
    printf '%s\n' "$BUILDER" "$2" "$VERSION"
  } | sha256sum | cut -d ' ' -f 1
}

# build_dnf_image: $IMAGES/dnf.tar, the runner's image with dnf for a test; fails where no Debian mirror answers.
build_dnf_image() {
  local archive=$IMAGES/dnf.tar image=localhost/scriptrunner-test/dnf:1 key
  key=$({ cat "$ROOT/tests/Dockerfile.dnf" && image_id "$RUNNER_IMAGE"; } | sha256sum)
  if [[ -e $archive && $(cat "$archive.inputs" 2>/dev/null) == "$key" ]]; then return; fi
  step "building the image $image"
  build_image "$ROOT/tests/Dockerfile.dnf" "$image" "$ROOT/tests" --build-arg "BASE=$RUNNER_IMAGE" || return
  rm -f "$archive" "$archive.inputs"
  save_image "$image" "$archive" && printf '%s\n' "$key" >"$archive.inputs"
}

build_operator() { build_image "$ROOT/Dockerfile.operator" "$1" "$ROOT"; }

# uv comes from the package index. Where that does not answer the runner falls back to pip.
build_runner() {
  local arguments=(--build-arg "BASE=$BASE") bundle=/etc/ssl/certs/ca-certificates.crt
  # The machine's certificates, for a package index behind a proxy that inspects TLS.
  if [[ $BUILDER != docker && -e $bundle ]]; then
    arguments+=(--volume "$bundle:/run/ca-bundle.crt:ro" --build-arg CA_BUNDLE=/run/ca-bundle.crt)
  fi
  build_image "$ROOT/Dockerfile.runner" "$1" "$ROOT" "${arguments[@]}" 2>/dev/null && return
  mv "$(build_log "$1")" "$(build_log "$1-with-uv")"
  # Another file than the one that is pinned is no reason to go on without it.
  ! grep -q "DO NOT MATCH THE HASHES" "$(build_log "$1-with-uv")" ||
    fail "uv is not the file that Dockerfile.runner pins" "see $(build_log "$1-with-uv"), and do not use that index"
  note "uv could not be put into the image ($(build_log "$1-with-uv")): dependencies will be installed with pip, slower"
  INCOMPLETE=yes
  build_image "$ROOT/Dockerfile.runner" "$1" "$ROOT" "${arguments[@]}" --build-arg UV_VERSION=
}

# write_sboms: what both programs are made of, as CycloneDX in JSON beside the archives. The base of the runner's image and uv
# are not in it.
write_sboms() {
  local copy=$OUT/sbom pair
  if ! have cargo-cyclonedx; then
    note "skipped: the bills of materials; cargo-cyclonedx is not installed (cargo install cargo-cyclonedx)"
    return
  fi
  step "writing the bills of materials of the operator and the runner"
  # The tool writes beside every Cargo.toml of a workspace, so it gets one of its own.
  rm -rf "$copy"
  mkdir -p "$copy"
  cp -r "$ROOT"/{Cargo.toml,Cargo.lock,api,bench,core,operator,runner-image,testcluster} "$copy"
  (cd "$copy" && quietly "$OUT/logs/sbom.log" cargo cyclonedx --format json --spec-version 1.5 \
    --target x86_64-unknown-linux-gnu --no-build-deps --override-filename sbom) ||
    fail "the bills of materials could not be written"
  for pair in operator=operator runner-image=runner; do
    mv "$copy/${pair%%=*}/sbom.json" "$IMAGES/${pair#*=}.cdx.json"
  done
  rm -rf "$copy"
}

# save_image IMAGE FILE
save_image() {
  case $BUILDER in
    docker) docker save --output "$2" "$1" ;;
    podman) podman save --quiet --format docker-archive --output "$2" "$1" ;;
    buildah) run_buildah push --quiet "$1" "docker-archive:$2:$1" ;;
  esac >/dev/null || fail "the image $1 could not be written to $2"
}
