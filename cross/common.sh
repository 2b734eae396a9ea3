# Functions that the scripts in this directory share, for sourcing.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cross=$root/target/cross

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# Sets triple, tools (the prefix of the target's binutils), deb_arch and budget: the most bytes that the
# binary may have. armv7's budget is the room that devices have.
target() { # target NAME
  case ${1:-} in
    aarch64 | aarch64-unknown-linux-musl)
      triple=aarch64-unknown-linux-musl tools=aarch64-linux-gnu deb_arch=arm64 budget=3500000 ;;
    armv7 | armv7-unknown-linux-musleabihf)
      triple=armv7-unknown-linux-musleabihf tools=arm-linux-gnueabihf deb_arch=armhf budget=2500000 ;;
    x86_64 | x86_64-unknown-linux-musl)
      triple=x86_64-unknown-linux-musl tools=x86_64-linux-gnu deb_arch=amd64 budget=4000000 ;;
    *) die "unknown target '${1:-}'; the targets are aarch64, armv7 and x86_64" ;;
  esac
  export triple tools deb_arch budget
}

# Installs the Debian packages that are missing.
need_packages() { # need_packages PACKAGE...
  local missing=() package
  command -v dpkg-query >/dev/null || die "this needs Debian with the packages $*"
  for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || die "packages are missing; run as root: apt-get install --no-install-recommends ${missing[*]}"
  say "installing ${missing[*]}"
  local apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  # vm-common takes the same lock: `apt-get update` does not wait for another one
  {
    flock 9 && "${apt[@]}" update &&
      DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}"
  } 9>"$cross/apt.lock" >"$cross/apt.log" 2>&1 ||
    { tail -20 "$cross/apt.log" >&2; die "apt could not install ${missing[*]}"; }
}

# Sets SOURCE_DATE_EPOCH to the time of the sources' commit.
source_date() {
  if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    [ -e "$root/.git" ] || die 'these sources have no Git history: set SOURCE_DATE_EPOCH to their date'
    command -v git >/dev/null || need_packages git
    # Git refuses directories that belong to another user
    SOURCE_DATE_EPOCH=$(git -c safe.directory='*' -C "$root" log -1 --format=%ct)
  fi
  export SOURCE_DATE_EPOCH
}

# Prints a hash of everything that the agent's binary is made from.
sources() {
  (cd "$root" && find src hal cross/build cross/cargo.toml cross/common.sh cross/patches cross/requirements.txt Cargo.toml Cargo.lock \
    docs/connector-agent.example.toml -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
}

# Prints the commit of the sources, with `+` if they differ from it; `unknown` without Git history.
commit() {
  local id
  if [ -n "${CONNECTOR_AGENT_COMMIT:-}" ]; then echo "$CONNECTOR_AGENT_COMMIT" && return; fi
  id=$(git -c safe.directory='*' -C "$root" rev-parse --short=10 HEAD 2>/dev/null) || { echo unknown && return; }
  git -c safe.directory='*' -C "$root" diff --quiet HEAD -- src hal cross Cargo.toml Cargo.lock || id+=+
  echo "$id"
}

# Whether target/cross has an agent for the target that was built from these sources.
is_built() { grep -qsx "sources: $(sources)" "$cross/$triple/build-info" && [ -x "$cross/$triple/connector-agent" ]; }

# Prints the version of the workspace.
version() { sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1; }

mkdir -p "$cross"
