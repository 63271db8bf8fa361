#!/usr/bin/env bash
# Build libeffdet and run all of its tests: `make native`. To run single steps, name them:
# scripts/native.sh tidy.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-$PWD/.venv/bin/python}
build=$PWD/native/build
jobs=${JOBS:-$(nproc)}

# check NAME OPTIONS...: configure with these options, build and test in the folder NAME.
check() {
  local folder=$build/$1
  shift
  cmake -S native -B "$folder" "${options[@]}" "$@" >"$folder.log" || { cat "$folder.log"; exit 1; }
  cmake --build "$folder" -j "$jobs"
  ctest --test-dir "$folder" --output-on-failure --no-tests=error
}

release() { check release; }

# Build with the other compiler, whose warnings are errors as well.
clang() { check clang -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++; }

tidy() {
  cmake -S native -B "$build/tidy" "${options[@]}" -DCMAKE_CXX_COMPILER=clang++ >/dev/null
  clang-tidy --quiet -p "$build/tidy" native/src/*.cpp native/tools/*.cpp
}

address() {
  check address -DEFFDET_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DEFFDET_TOOLS=OFF -DEFFDET_EXAMPLES=OFF
}

# ThreadSanitizer reports false errors in runtimes that were not compiled with it, so this step has
# only the fake runtime of the tests.
threads() {
  check threads -DEFFDET_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DEFFDET_TOOLS=OFF -DEFFDET_EXAMPLES=OFF
}

aarch64() {
  check aarch64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DEFFDET_TOOLS=OFF \
    -DEFFDET_EXAMPLES=OFF -DOpenVINO_DIR=OpenVINO-NOTFOUND
}

# Install libeffdet, and use it from a project outside this tree through CMake and pkg-config.
consumer() {
  local prefix=$build/installed
  rm -rf "$prefix"
  cmake --install "$build/release" --prefix "$prefix" >/dev/null
  local project
  for project in consumer consumer_c; do
    cmake -S "native/tests/$project" -B "$build/$project" "-DCMAKE_PREFIX_PATH=$prefix" >/dev/null
    cmake --build "$build/$project"
    ctest --test-dir "$build/$project" --output-on-failure --no-tests=error
  done
  local flags
  flags=$(PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name effdet.pc)") pkg-config --cflags --libs effdet)
  # shellcheck disable=SC2086 # the flags are several words
  c++ -std=c++17 native/tests/consumer/main.cpp $flags -o "$build/consumer/by_pkg_config"
  LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libeffdet.so)") "$build/consumer/by_pkg_config"
}

pytest() { "$python" -m pytest tests/native -m "native or not native" -n "$jobs" --dist loadfile; }

if (($#)); then
  steps=("$@")
else
  scripts/native_packages.sh
  steps=(release consumer pytest clang tidy address threads aarch64)
fi

# This comes after the packages: on a fresh machine they bring the header that is searched here.
options=(-DEFFDET_WERROR=ON)
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[[ -d $build/headers ]] && options+=("-DONNXRUNTIME_INCLUDE_DIR=$build/headers")
[[ -n ${ONNXRUNTIME_INCLUDE_DIR:-} ]] &&
  options+=("-DONNXRUNTIME_INCLUDE_DIR=$ONNXRUNTIME_INCLUDE_DIR")
[[ -d $site/openvino/cmake ]] && options+=("-DOpenVINO_DIR=$site/openvino/cmake")
mkdir -p "$build"
for step in "${steps[@]}"; do
  echo "== $step"
  "$step"
done
