#!/usr/bin/env bash
# Installs the build, moves the installed tree, then builds and runs a program that finds it there.
set -euo pipefail
build=$TESSERA_BUILD_DIR consumer=$TESSERA_SOURCE_DIR/tests/install/consumer

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/install.log" || fail "$(tail -5 "$work/install.log")"
mv "$work/first" "$work/moved tree"
prefix="$work/moved tree"
if grep -rlF -e "$build" -e "$work/first" "$prefix" --include='*.cmake' --include='*.h'; then
  fail "these installed files name the place of the build"
fi
for header in "$prefix"/include/tessera/{core,tensor,autograd,layers,attention,models,data,train}; do
  [ -d "$header" ] || fail "$header is not installed"
done

cmake -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix"
cmake --build "$work/build"
output=$("$work/build/consumer")
[ "$output" = "logits [2, 10]" ] || fail "the consumer printed: $output"

# Without the build folder's libraries: those beside the program are the ones it has to find.
ldd "$prefix/bin/tessera" | grep tessera_ | grep -vF "$prefix" && fail "libraries from elsewhere"
"$prefix/bin/tessera" --version
