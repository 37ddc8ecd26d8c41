#!/usr/bin/env bash
# A folder can include only what lies below it: a compiler that is given the include path of its library does not
# find the headers of the others, and no source asks for them.
set -euo pipefail
cd "$TESSERA_SOURCE_DIR"

# Stated here once more, so that a wrong LINK in CMakeLists.txt is found.
declare -A allowed=(
  [core]="core"
  [tensor]="core tensor"
  [autograd]="core tensor autograd"
  [layers]="core tensor autograd layers"
  [attention]="core tensor autograd layers attention"
  [models]="core tensor autograd layers attention models"
  [data]="core tensor data"
  [train]="core tensor autograd layers attention models data train"
)
# Compiled away from the sources: "..." is looked up beside the including file, too.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
log=$elsewhere/log
status=0
fail() {
  echo "FAILED: $*" >&2
  status=1
}
may_include() { [[ " ${allowed[$1]} " == *" $2 "* ]]; }
first_header() { find "$1" -maxdepth 1 -name '*.h' ! -name '*-inl.h' | sort | head -1; }

# compiles FOLDER HEADER: whether a source file of the library FOLDER could include the header.
compiles() {
  local flags=() directory
  while IFS= read -r directory; do flags+=("-I$directory"); done <"$TESSERA_BUILD_DIR/include/$1.txt"
  echo "#include \"$2\"" >"$elsewhere/source.cc"
  "$CXX" -std=c++20 -fsyntax-only "${flags[@]}" "$elsewhere/source.cc" 2>"$log"
}

for folder in "${!allowed[@]}"; do
  header=$(first_header "$folder")
  compiles "$folder" "$header" || fail "$header does not compile in its own library: $(cat "$log")"
  for other in "${!allowed[@]}"; do
    may_include "$folder" "$other" && continue
    header=$(first_header "$other")
    compiles "$folder" "$header" && fail "a file of $folder can include $header"
    grep -qF "$header: No such file" "$log" || fail "$header is found from $folder: $(cat "$log")"
  done
  while IFS=: read -r file line include; do
    other=${include#*\"}
    other=${other%%/*}
    [ -n "${allowed[$other]:-}" ] || [ "$other" = tests ] || continue
    # The CUDA headers stand on the emulator where kernels are compiled for it.
    [[ $include == *'"tests/emulator/'* && $file == *core/cuda/* ]] && continue
    may_include "$folder" "$other" || fail "$file:$line: $folder may not include $other"
  done < <(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' '^ *# *include "[a-z]+/' "$folder")
done
exit $status
