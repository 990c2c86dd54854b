#!/usr/bin/env bash
# All that needs a GPU, on a machine with one: kernels, golden suite, and the fast against the plain training step.
# Golden arrays other than the repository's: GOLDEN_DIR. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())'
"$python" -m pytest -p no:cacheprovider tests/rasterizer tests/gpu
TEST_DEVICE=cuda "$python" -m pytest -p no:cacheprovider tests/golden
"$python" tools/compare_paths.py --n_steps 200 "$@"
