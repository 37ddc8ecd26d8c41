#!/usr/bin/env bash
# Runs everything in this folder, which bundle.sh made, on this machine's GPU and prints a table: one line per program.
# Needs the driver and the CUDA libraries (cudart, cublasLt), installed or in Python packages; takes 9 minutes at most.
# Exits with 0 if all passed, 1 if not, 77 if there is no GPU. Output of the programs: logs/.
set -uo pipefail
cd "$(dirname "$0")"
deadline=$((SECONDS + 530))
mkdir -p logs

for packed in lib/*.gz; do
  [ -e "$packed" ] && gunzip -f "$packed"
done
# Toolkits are in /usr/local/cuda*, the libraries of Python packages in nvidia/*/lib.
paths=$PWD/lib
for folder in "${CUDA_HOME:-/usr/local/cuda}"/lib64 /usr/local/cuda-*/lib64 \
    $(python3 -c 'import nvidia; print(*nvidia.__path__)' 2>/dev/null | sed 's| |\n|g; s|$|/*/lib|'); do
  ls "$folder"/libcudart.so.* "$folder"/libcublasLt.so.* >/dev/null 2>&1 && paths="$paths:$folder"
  [ -d "$folder" ] && paths="$paths:$folder"
done
export LD_LIBRARY_PATH="$paths${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | sed 's/^/GPU: /'
bin/gpu_step_bench none 1 >logs/first.log 2>&1
if [ $? -eq 77 ]; then
  cat logs/first.log
  exit 77
fi
if grep -q 'error while loading shared libraries' logs/first.log; then
  cat logs/first.log
  exit 1
fi

failed=0
row() { printf '%-34s %-8s %6s  %s\n' "$@"; }
# run NAME COMMAND...: one line of the table.
run() {
  local name=$1 left=$((deadline - SECONDS)) start=$SECONDS verdict=ok
  shift
  if [ "$left" -lt 5 ]; then
    row "$name" "not run" - "no time left"
    failed=1
    return
  fi
  timeout "$left" "$@" >"logs/$name.log" 2>&1 || verdict=FAILED
  [ "$verdict" = ok ] || failed=1
  row "$name" "$verdict" "$((SECONDS - start))" "$(tail -n 1 "logs/$name.log" | cut -c 1-100)"
}

row program verdict seconds "last line"
run gpu_device_step_test bin/gpu_device_step_test
for test in bin/tensor_*_test bin/attention_*_test; do
  run "$(basename "$test")" env TESSERA_TEST_DEVICE=cuda "$test"
done
for precision in fp32 bf16; do
  run "golden_$precision" env TESSERA_TEST_DEVICE=cuda bin/gpu_golden_test --golden_dir=golden --precision=$precision
done
run step_bench bin/gpu_step_bench davit_tiny 128
cat logs/step_bench.log
exit $failed
