"""PSNR, SSIM and LPIPS of an X-Humans subject's test renders (SPEC 14)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.evaluation_command import main

if __name__ == "__main__":
    main(__doc__)
