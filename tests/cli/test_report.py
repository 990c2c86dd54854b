"""The report is written by its tool and at the end of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import SUBJECT, Workspace, run_here


def test_training_ends_with_the_report_that_the_tool_writes(trained: Workspace, monkeypatch, tmp_path: Path):
    options = trained.options(**{"optim.n_epochs": "2"})
    ended = ("--continue", "--no_lpips", "--body.n_subdivisions", "0")  # nothing is left to do but the report
    run_here("main/train.py", [*options, *ended], monkeypatch)
    page = trained.output / "report" / f"{SUBJECT}.html"
    assert "snapshot_1.pth" in page.read_text()
    run_here(
        "tools/report.py", [*options, "--test_epoch", "0", "--output", str(tmp_path / "a.html")], monkeypatch
    )
    assert "snapshot_0.pth" in (tmp_path / "a.html").read_text()


def test_a_page_that_is_not_html_by_name_is_refused(trained: Workspace, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_here("tools/report.py", [*trained.options(), "--output", "report.pdf"], monkeypatch)
    assert stop.value.code == 2 and ".html" in capsys.readouterr().err
