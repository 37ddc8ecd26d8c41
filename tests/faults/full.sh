#!/usr/bin/env bash
# All cases of the tests of faults, where ctest runs a few, and a million executions of each fuzz target. Prints a
# table of results; takes about two hours.
#
#   tests/faults/full.sh [NAME...]        NAME: kills, system_calls, damaged_checkpoints, signals, data_wait,
#                                         same_bits, growth, bad_samples, fuzz; without one all of them
# Needs the presets release (build/) and, for fuzz, fuzz (build-fuzz/, with clang). RUN=COMMAND runs everything under
# a command such as nice; EXECUTIONS changes the million.
set -euo pipefail
cd "$(dirname "$0")/../.."

tests="kills system_calls damaged_checkpoints signals data_wait same_bits growth bad_samples"
[ $# -gt 0 ] || set -- $tests fuzz
executions=${EXECUTIONS:-1000000}
table=$(mktemp)
trap 'rm -f "$table"' EXIT
export TESSERA_FAULTS_TABLE=$table OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
status=0

# row FAULT CASES RESULT
row() { echo "| $1 | $2 | $3 |" >>"$table"; }

run_test() {
  local log rows=$(wc -l <"$table")
  log=$(mktemp)
  if ! ${RUN:-} "build/tests/faults_$1_test" >"$log" 2>&1; then
    status=1
    row "$1" "" "FAILED, see $log"
    return
  fi
  [ "$(wc -l <"$table")" -gt "$rows" ] || row "$1" "$(grep -c '^\[       OK' "$log")" "passed"
  rm -f "$log"
}

# One target, in pieces of a minute that share a corpus, until it has run as often as it should.
run_fuzzer() {
  local name=$1 done=0 pieces=0 corpus log
  corpus=$(mktemp -d)
  log=$(mktemp)
  "build-fuzz/tests/fuzz/${name}_corpus" "$corpus"
  while [ "$done" -lt "$executions" ]; do
    if ! ${RUN:-} "build-fuzz/tests/fuzz/fuzz_$name" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
      -runs=$((executions - done)) -max_total_time=60 -seed=$((++pieces)) -artifact_prefix="$corpus/" "$corpus" >"$log" 2>&1
    then
      status=1
      row "hostile input: $name" "$done" "FAILED, see $log"
      return
    fi
    done=$((done + $(awk '/number_of_executed_units/ { print $2 }' "$log")))
  done
  row "hostile input: $name" "$done" "no crash, hang, leak or undefined behaviour; at most 2 GiB and 10 s an input"
  rm -rf "$corpus" "$log"
}

for name; do
  if [ "$name" != fuzz ]; then
    run_test "$name"
    continue
  fi
  for target in build-fuzz/tests/fuzz/fuzz_*; do
    case $target in *.* | *CMakeFiles*) continue ;; esac
    run_fuzzer "$(basename "$target" | sed 's/^fuzz_//')"
  done
done
echo "| fault | cases | result |"
echo "|---|---|---|"
cat "$table"
exit $status
