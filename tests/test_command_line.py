"""Options become a dataclass; wrong ones become one line that says what is wrong and what may be meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from common.command_line import parse
from common.errors import UserError


@dataclass(frozen=True)
class Inner:
    n_epochs: int = 5
    """How often."""


@dataclass(frozen=True)
class Options:
    subject_id: str
    """Whose avatar."""
    device: Literal["auto", "cpu"] = "auto"
    overwrite: bool = False
    optim: Inner = field(default_factory=Inner)


def test_options_keep_their_underscores_and_nested_ones_their_dots():
    options = parse(Options, None, ["--subject_id", "a", "--optim.n_epochs", "7", "--overwrite"])
    assert options == Options("a", overwrite=True, optim=Inner(7))


def test_help_is_printed_with_its_description(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, "What it does.", ["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert "What it does." in said and "--subject_id" in said and "--no_overwrite" not in said


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        ([], ["Missing", "--subject_id"]),
        (["--subject_id", "a", "--bogus"], ["Unrecognized options: --bogus;"]),
        (
            ["--subject_id", "a", "--optim.n_epoch", "7"],
            ["--optim.n_epoch,", "perhaps --optim.n_epochs is meant"],
        ),
        (["--subject_id", "a", "--device", "tpu"], ["'tpu'", "--device", "'auto', 'cpu'"]),
        (["--subject_id", "a", "--optim.n_epochs", "x"], ["--optim.n_epochs", "'x'"]),
        (["--bogus"], ["Missing", "--subject_id", "Unrecognized options: --bogus;"]),
        (["--subject_id", "a", "b"], ["Unrecognized options: b;"]),
        (["--subject_id"], ["--subject_id"]),
    ],
)
def test_wrong_options_are_told_in_one_line(args, parts, capsys):
    with pytest.raises(UserError) as refused:
        parse(Options, None, args)
    line = str(refused.value)
    assert all(part in line for part in parts)
    assert line.endswith("--help lists all options") and "─" not in line and "│" not in line
    assert capsys.readouterr().err == ""
