#!/bin/sh
# Fails if a kernel of a .cu file was launched by none of the emulator's tests, which write what they launched
# to $TESSERA_BUILD_DIR/emulator_launches, or if a .cu file uses what the emulator can not see. Runs after them.
set -eu
cd "$TESSERA_SOURCE_DIR"
logs="$TESSERA_BUILD_DIR/emulator_launches"
failed=0
if [ -z "$(ls "$logs")" ]; then
  echo "no launches in $logs: run the tests emulator_*_test first"
  exit 1
fi
launched=$(cat "$logs"/* | awk '$1 > 0 { sub(/^[0-9]+ /, ""); gsub(/<.*/, ""); gsub(/.*::/, ""); print }' | sort -u)

for file in $(find tensor attention -name '*.cu') core/cuda/*.h; do
  # The name follows KERNEL(...), on the same line or the next.
  for kernel in $(tr '\n' ' ' <"$file" | grep -oE '\bKERNEL\([A-Za-z0-9_ *]+\) +[A-Za-z0-9_]+\(' |
                  sed -E 's/.* ([A-Za-z0-9_]+)\($/\1/'); do
    case "$file:$kernel" in core/cuda/*:Scale) continue ;; esac  # the example in the comments
    if ! echo "$launched" | grep -qx "$kernel"; then
      echo "$file: kernel $kernel was launched by no test of the emulator"
      failed=1
    fi
  done
done

for file in $(find tensor attention -name '*.cu'); do
  if grep -nE '__shared__|__global__|__device__|__sync|__shfl|<<<|\basm\b|cooperative_groups|atomicAdd' "$file"; then
    echo "$file: use the names of core/cuda/device.h and launch.h instead"
    failed=1
  fi
  if grep -nE '#include "(absl|tensor/tensor.h|core/check.h)' "$file"; then
    echo "$file: kernel files include neither Abseil nor tensor.h"
    failed=1
  fi
done
exit $failed
