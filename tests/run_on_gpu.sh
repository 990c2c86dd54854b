#!/usr/bin/env bash
# All that needs a GPU, on a machine with one, in about ten minutes. A part that fails does not keep the others from
# running; at the end a table tells how each went, and the exit code is 1 if any failed.
#   tests/run_on_gpu.sh [--only PART[,PART...]] [--list]
# PYTHON chooses the interpreter, GOLDEN_DIR other golden arrays than the repository's, GPU_LOGS the folder of the logs,
# GPU_LIMIT the seconds after which a part counts as failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}
logs=${GPU_LOGS:-output/gpu_tests}
limit=${GPU_LIMIT:-300}
parts=(kernels golden engine paths resume deterministic memory without_triton benchmark compile)

run_part() {
    local run=(timeout -k 10 "$limit" "$python")
    local test=("${run[@]}" -m pytest -p no:cacheprovider -s)
    case $1 in
        compile) "${test[@]}" tests/gpu/test_compilation.py ;;
        kernels) "${test[@]}" tests/rasterizer tests/gpu/test_kernels.py tests/gpu/test_objective.py ;;
        golden) TEST_DEVICE=cuda "${test[@]}" tests/golden ;;
        engine) "${test[@]}" tests/gpu/test_engine.py ;;
        paths) "${run[@]}" tools/compare_paths.py --n_steps 200 ;;
        resume) "${test[@]}" tests/gpu/test_runs.py -k goes_on ;;
        deterministic) "${test[@]}" tests/gpu/test_runs.py -k same_bits ;;
        memory) "${test[@]}" tests/gpu/test_runs.py -k memory ;;
        without_triton) "${test[@]}" tests/gpu/test_runs.py -k without_triton ;;
        benchmark) "${run[@]}" tools/benchmark.py --device cuda --output "$logs/benchmark.json" ;;
    esac
}

chosen=("${parts[@]}")
while [ $# -gt 0 ]; do
    case $1 in
        --list) printf '%s\n' "${parts[@]}" && exit 0 ;;
        --only) IFS=, read -r -a chosen <<< "${2:-}" && shift $(($# > 1 ? 2 : 1)) ;;
        *) echo "$1: give --only PART[,PART...] or --list" >&2 && exit 2 ;;
    esac
done
for part in "${chosen[@]}" "${chosen[0]:-}"; do
    case " ${parts[*]} " in
        *" $part "*) [ -n "$part" ] && continue ;;
    esac
    echo "no part '$part'; there are: ${parts[*]}" >&2
    exit 2
done

"$python" -c '
import sys, torch
if not torch.cuda.is_available():
    sys.exit("PyTorch sees no CUDA device")
print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
' || exit 2
mkdir -p "$logs"
results=() failed=0
for part in "${chosen[@]}"; do
    echo "=== $part"
    start=$SECONDS
    if run_part "$part" 2>&1 | tee "$logs/$part.log"; then result=passed; else result=FAILED failed=1; fi
    results+=("$(printf '%-14s %-7s %4d s' "$part" "$result" $((SECONDS - start)))")
done
echo "=== summary (logs in $logs)"
printf '%s\n' "${results[@]}"
exit $failed
