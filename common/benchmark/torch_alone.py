"""What every program with PyTorch takes to start: run as a program, prints one line of JSON.

The first argument is the time when it was started (`time.time()`), the second the device.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Import PyTorch and make a tensor on the device; seconds since the start."""
    started = float(sys.argv[1])
    import torch

    done = {"imports": time.time() - started}
    torch.zeros(1, device=sys.argv[2]).tolist()
    done["first tensor"] = time.time() - started
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
