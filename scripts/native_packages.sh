#!/usr/bin/env bash
# Install the compilers and headers that building libeffdet needs, from Debian's packages. Debian 12
# has no package with ONNX Runtime's header, so the header is copied out of a newer release's
# package, which comes from the same servers that this machine's apt uses and is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

headers=native/build/headers
packages=(cmake g++ nlohmann-json3-dev libpng-dev libjpeg-dev pkg-config)
checks=(clang clang-tidy g++-aarch64-linux-gnu qemu-user-static)
newer=trixie

missing=()
for package in "${packages[@]}" "${checks[@]}"; do
  dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done
if ((${#missing[@]})); then
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "libeffdet is built and checked with these packages, which are missing: ${missing[*]}." >&2
    echo "Install them and run the same command again." >&2
    exit 4
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}"
fi

if [[ -f $headers/onnxruntime_c_api.h || -n ${ONNXRUNTIME_INCLUDE_DIR:-} ]] ||
  [[ -f /usr/include/onnxruntime/onnxruntime_c_api.h ]]; then
  exit 0
fi

# A separate list of sources: the server that this machine's apt uses, with the newer release.
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
address=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
  grep -v security | sort -u | head -1)
key=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -f $key ]] && key="[signed-by=$key]" || key=
echo "deb $key $address $newer main" >"$state/sources.list"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$state" && "${apt[@]}" download libonnxruntime-dev)
dpkg-deb --extract "$state"/libonnxruntime-dev_*.deb "$state/unpacked"
mkdir -p "$headers"
cp "$state/unpacked/usr/include/onnxruntime/onnxruntime_c_api.h" "$headers/"
