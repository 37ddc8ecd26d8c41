#!/usr/bin/env bash
# Files stay short and clean: at most 500 lines, 600 for kernels; no tabs, trailing blanks or missing last newline.
set -euo pipefail
cd "$TESSERA_SOURCE_DIR"

status=0
fail() {
  echo "FAILED: $*" >&2
  status=1
}

count=0
while IFS= read -r -d '' file; do
  count=$((count + 1))
  case "$file" in
    *_cpu.cc | *-inl.h | *.cu | *.cuh) limit=600 ;;
    *) limit=500 ;;
  esac
  lines=$(wc -l <"$file")
  [ "$lines" -le $limit ] || fail "$file has $lines lines, more than $limit"
  grep -nP '\t|[ \r]$' "$file" && fail "$file has tabs or trailing blanks"
  [ -z "$(tail -c 1 "$file")" ] || fail "$file does not end with a newline"
done < <(find . \( -path './build*' -o -path ./.git -o -path ./runs \) -prune -o -type f \
  \( -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cmake' -o -name '*.sh' \
  -o -name 'CMakeLists.txt' -o -name '*.yaml' -o -path ./tessera \) -print0)
[ $count -gt 100 ] || fail "only $count files found"
exit $status
