#!/usr/bin/env bash
# The launcher in a copy of the sources that holds little else, with stand-ins for the package manager and for CMake.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
repo="$work/a repository"
mkdir -p "$repo/configs" "$work/bin" "$work/elsewhere/configs"
cp "$TESSERA_SOURCE_DIR/tessera" "$repo/tessera"
echo "root: idx:/usr/share/datasets/fashion-mnist" >"$repo/configs/quickstart.yaml"
echo "root: here" >"$repo/configs/smoke.yaml"
echo "root: mine" >"$work/elsewhere/configs/mine.yaml"

stand_in() {
  cat >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}
# Files below $FAKE/missing are packages that are not installed, those below $FAKE/unknown can not be had.
export FAKE=$work/fake
mkdir -p "$FAKE/missing" "$FAKE/unknown"
stand_in dpkg-query <<'END'
#!/usr/bin/env bash
shift 3
for package; do [ -e "$FAKE/missing/$package" ] || echo "ii  $package"; done
END
stand_in apt-get <<'END'
#!/usr/bin/env bash
echo "apt-get as ${FAKE_SUDO:-itself}: $*" >>"$FAKE/log"
[ "$1" = install ] || exit 0
for package; do
  [ ! -e "$FAKE/unknown/$package" ] || { echo "E: Unable to locate package $package"; exit 100; }
  rm -f "$FAKE/missing/$package"
done
END
stand_in id <<'END'
#!/usr/bin/env bash
cat "$FAKE/uid"
END
stand_in sudo <<'END'
#!/usr/bin/env bash
[ -e "$FAKE/sudo_works" ] || exit 1
[ "$1" != -n ] || shift
FAKE_SUDO=sudo exec "$@"
END
stand_in cmake <<'END'
#!/usr/bin/env bash
echo "cmake $*" >>"$FAKE/log"
if [ "$1" = --preset ]; then
  touch build/build.ninja
  echo "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" >build/CMakeCache.txt
  exit
fi
echo "[1/2] compiling"
[ ! -e "$FAKE/broken" ] || { echo "x.cc:1: error: broken"; exit 1; }
cat >"$2/tessera" <<'PROGRAM'
#!/usr/bin/env bash
echo "in $PWD:" "$@"
[ "${2:-}" != wait ] || { trap 'exit 75' INT; touch "$FAKE/waiting"; while :; do sleep 0.05; done; }
[ "${2:-}" != fail ] || exit 3
PROGRAM
chmod +x "$2/tessera"
END
stand_in ctest <<'END'
#!/usr/bin/env bash
echo "ctest $*"
exit 8
END
export PATH="$work/bin:$PATH"

failures=0
# expect NAME STATUS PATTERN...: the last run ended so, and its output has each of the patterns; "!x" must not occur.
expect() {
  local name=$1 wanted=$2 pattern bad=
  shift 2
  [ "$status" -eq "$wanted" ] || bad="status $status instead of $wanted"
  for pattern; do
    if [[ $pattern == !* ]]; then
      [[ $output != *"${pattern#!}"* ]] || bad="'${pattern#!}' was printed"
    else
      [[ $output == *"$pattern"* ]] || bad="'$pattern' was not printed"
    fi
  done
  [ -n "$bad" ] || return 0
  printf 'FAILED: %s: %s\n%s\n' "$name" "$bad" "$output" >&2
  failures=$((failures + 1))
}
run() {
  status=0
  output=$("$@" 2>&1 </dev/null) || status=$?
}
# In a terminal, in which $1 is typed.
run_in_terminal() {
  status=0
  output=$(printf '%s\n' "$1" | script -qec "$2" /dev/null 2>&1) || status=$?
}
logged() { output=$(cat "$FAKE/log" 2>/dev/null || true); }
reset() { rm -f "$FAKE/log"; }
launcher=$repo/tessera
cd "$work/elsewhere"
echo 1000 >"$FAKE/uid"

run "$launcher" --help
expect "help" 0 "train CONFIG" "predict" "test [CTEST" "!#" "!set -e"
run "$launcher"
expect "no command" 2 "Usage"
run "$launcher" tarin
expect "unknown command" 2 "no command 'tarin'"
logged
expect "nothing is built for a wrong command" 2 "!cmake"

touch "$FAKE/missing/libhwy-dev" "$FAKE/missing/libdnnl-dev"
run "$launcher" models
expect "packages without root" 2 "missing Debian packages: libdnnl-dev libhwy-dev" \
  "sudo apt-get install --no-install-recommends libdnnl-dev libhwy-dev"
run_in_terminal n "'$launcher' models"
expect "no said when asked" 2 "[Y/n]" "sudo apt-get install"
logged
expect "nothing was installed" 2 "!apt-get" "!cmake"
touch "$FAKE/sudo_works"
run_in_terminal "" "'$launcher' models"
expect "yes said when asked" 0 "[Y/n]" "in $work/elsewhere: models"
logged
expect "sudo installs" 0 "apt-get as sudo: install -y --no-install-recommends libdnnl-dev libhwy-dev" "cmake --preset"
touch "$FAKE/missing/ninja-build"
run "$launcher" models
expect "sudo without a password and without a terminal" 0 "!Y/n" "in $work/elsewhere: models"
echo 0 >"$FAKE/uid"
rm "$FAKE/sudo_works"
touch "$FAKE/missing/ninja-build" "$FAKE/unknown/ninja-build"
run "$launcher" models
expect "a package that can not be had" 2 "E: Unable to locate package ninja-build" "install them with"
rm "$FAKE/unknown/ninja-build"
run "$launcher" models
expect "as root" 0 "missing Debian packages: ninja-build" "in $work/elsewhere: models"

reset
run "$launcher" train configs/mine.yaml "a b=c d" configs/absent.yaml "data.root=configs/smoke.yaml"
expect "arguments stay as they are" 0 \
  "in $work/elsewhere: train configs/mine.yaml a b=c d configs/absent.yaml data.root=configs/smoke.yaml" "!tessera:"
logged
expect "an existing build is not configured again" 0 "cmake --build" "--target tessera" "!--preset"
run "$launcher" train configs/smoke.yaml
expect "a config of the sources" 0 "in $work/elsewhere: train $repo/configs/smoke.yaml"
ln -s "$launcher" "$work/link to it"
run "$work/link to it" eval x
expect "through a link" 0 "in $work/elsewhere: eval x"
run "$launcher" eval fail
expect "exit codes pass" 3
set -m
"$launcher" train wait >"$work/output" 2>&1 </dev/null &
for _ in {1..200}; do [ -e "$FAKE/waiting" ] || sleep 0.05; done
kill -INT -- -$!
status=0
wait $! || status=$?
set +m
output=$(cat "$work/output")
expect "an interrupt reaches the program" 75 "train wait"

touch "$FAKE/missing/dataset-fashion-mnist"
run "$launcher" train configs/smoke.yaml
expect "the data set is not asked for by others" 0 "!dataset"
touch "$FAKE/unknown/dataset-fashion-mnist"
run "$launcher" train configs/quickstart.yaml
expect "the data set can not be had" 0 "install them with" "configs/smoke.yaml" "train $repo/configs/quickstart.yaml"
rm "$FAKE/unknown/dataset-fashion-mnist"
run "$launcher" train configs/quickstart.yaml
expect "the data set is installed" 0 "missing Debian packages: dataset-fashion-mnist" "!smoke" "in $work"

run "$launcher" test -R some
expect "test" 8 "ctest --test-dir $repo/build --output-on-failure -R some"
touch "$FAKE/broken"
run "$launcher" models
expect "a build that fails" 1 "x.cc:1: error: broken" "the build failed" "!compiling" "!in $work/elsewhere"
rm "$FAKE/broken"
mv "$repo" "$work/moved"
reset
run "$work/moved/tessera" models
logged
expect "moved sources are configured again" 0 "cmake --preset release"

[ $failures -eq 0 ]
