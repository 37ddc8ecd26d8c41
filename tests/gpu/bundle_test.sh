#!/usr/bin/env bash
# bundle.sh, and what it packs as far as that runs without a GPU.
set -euo pipefail
cd "$TESSERA_SOURCE_DIR"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $1"
  exit 1
}

if [ ! -f "$TESSERA_BUILD_DIR/gpu_programs.txt" ]; then
  code=0
  tests/gpu/bundle.sh "$TESSERA_BUILD_DIR" "$work/bundle" 2>"$work/errors" || code=$?
  [ "$code" -eq 2 ] || fail "exit code $code without CUDA, expected 2"
  grep -q "no build with CUDA" "$work/errors" || fail "another message without CUDA: $(cat "$work/errors")"
  [ ! -e "$work/bundle" ] || fail "something was packed"
  exit 0
fi

tests/gpu/bundle.sh "$TESSERA_BUILD_DIR" "$work/bundle"
[ "$(du -sm "$work/bundle" | cut -f1)" -le 61 ] || fail "more than 60 MiB"

# Nothing of this account's environment, and no GPU but one that is not looked for.
code=0
env -i PATH=/usr/bin:/bin CUDA_VISIBLE_DEVICES= "$work/bundle/run.sh" >"$work/output" 2>&1 || code=$?
cat "$work/output"
[ "$code" -eq 77 ] || fail "exit code $code without a GPU, expected 77"
grep -q "this machine has no GPU that CUDA can use" "$work/output" || fail "no word of the missing GPU"
code=0
env -i PATH=/usr/bin:/bin CUDA_VISIBLE_DEVICES= TESSERA_TEST_DEVICE=cuda \
  LD_LIBRARY_PATH="$work/bundle/lib:/usr/local/cuda/lib64" "$work/bundle/bin/tensor_add_test" 2>/dev/null || code=$?
[ "$code" -eq 77 ] || fail "exit code $code of a test without a GPU, expected 77"

# Every library comes from the bundle, CUDA or glibc.
foreign=$(for program in "$work"/bundle/bin/*; do
  env -i LD_LIBRARY_PATH="$work/bundle/lib:/usr/local/cuda/lib64" ldd "$program"
done | awk '$2 == "=>" { print $1, $3 }' | sort -u | grep -vF "$work/bundle/lib/" |
  grep -vE '^(libc|libm|libdl|librt|libpthread|libcudart|libcublas|libcublasLt)\.so' || true)
[ -z "$foreign" ] || fail "libraries from elsewhere: $foreign"
