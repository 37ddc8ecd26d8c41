#!/usr/bin/env bash
# Packs the tests for a machine with a GPU: tests/gpu/bundle.sh [BUILD [FOLDER]], build-cuda and gpu-bundle by default.
# FOLDER then holds programs, reference values and every library but those of CUDA and glibc; run.sh in it runs them.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build-cuda}
bundle=${2:-gpu-bundle}
limit_mib=60

if [ ! -f "$build/gpu_programs.txt" ]; then
  echo "bundle.sh: $build is no build with CUDA; cmake --preset cuda && cmake --build build-cuda makes one" >&2
  exit 2
fi
mapfile -t programs <"$build/gpu_programs.txt"
for program in "${programs[@]}"; do
  [ -x "$program" ] || { echo "bundle.sh: $program is not built: cmake --build $build --target gpu_programs" >&2; exit 2; }
done
mkdir -p "$(dirname "$bundle")"
rm -rf "$bundle.new"
mkdir -p "$bundle.new/bin" "$bundle.new/lib"

cp "${programs[@]}" "$bundle.new/bin"
# Of the lines "NAME => PATH (ADDRESS)"; "not found" is an error here and not on the other machine.
libraries=$(ldd "${programs[@]}")
if missing=$(grep 'not found' <<<"$libraries" | grep -vE 'lib(cudart|cublasLt)\.'); then
  echo "bundle.sh: $missing" >&2
  exit 1
fi
awk '$3 ~ /^\// { print $3 }' <<<"$libraries" | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*|libcuda|libcudart|libcublas|libcublasLt)\.so' |
  xargs cp -L -t "$bundle.new/lib"
strip "$bundle.new"/bin/* "$bundle.new"/lib/*
# Most of all bytes, and much of it code for other processors.
gzip "$bundle.new"/lib/*
cp -r tests/golden/cases "$bundle.new/golden"
cp tests/gpu/run.sh "$bundle.new"

mib=$(($(du -sb "$bundle.new" | cut -f1) / 1048576 + 1))
if [ "$mib" -gt "$limit_mib" ]; then
  echo "bundle.sh: $mib MiB in $bundle.new, more than $limit_mib" >&2
  exit 1
fi
rm -rf "$bundle"
mv "$bundle.new" "$bundle"
echo "$bundle: ${#programs[@]} programs, $mib MiB; on the other machine: $(basename "$bundle")/run.sh"
