"""The ablation's variants, table and plot; the runs themselves take minutes (tools/ablation.py)."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest
import tyro
from PIL import Image

from main.config import Config
from main.train_options import TrainArgs
from tools import ablation

# What differs from the full method while a variant trains.
SWITCHED_OFF = {
    "full method": {},
    "no balanced sampling": {"optim.unbalanced_sampling": True, "optim.n_epochs": 10},
    "no geometry weighting": {
        "loss.boundary": 1.0,
        "loss.boundary_terms": 0.0,
        "loss.captured_geometry": 1.0,
    },
    "no auxiliary colour": {"avatar.without_aux_rgb": True},
    "no pose-driven offsets": {"avatar.without_pose_offsets": True},
    "initialisation only": {"initialise_only": True},
}
TABLE = {
    "full method": {metric: [1.0, 2.0, 4.5] for metric in ablation.METRICS},
    "initialisation only": {metric: [7.0] for metric in ablation.METRICS},
}


def parsed(options: list[str]) -> TrainArgs:
    return tyro.cli(
        TrainArgs,
        args=["--subject_id", "demo", *options],
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_a_variant_trains_without_what_its_name_says_and_with_all_else(variant):
    training, posing = ablation.VARIANTS[variant]
    args = parsed([*training, *posing])
    changed = {
        f"{part}.{name}": value
        for part, values in asdict(args.config).items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value != asdict(Config())[part][name]
    }
    changed |= {"initialise_only": True} if args.initialise_only else {}
    assert changed == SWITCHED_OFF[variant]


def test_the_table_has_mean_and_deviation_over_the_seeds():
    rows = ablation.markdown(TABLE).splitlines()
    assert rows[0] == f"| variant | {' | '.join(ablation.METRICS)} |"
    assert rows[2].split(" | ")[1] == "2.5 ± 1.8"  # of the sample: sqrt((1.5^2 + 0.5^2 + 2^2) / 2)
    assert rows[3].split(" | ")[1] == "7"


def test_the_plot_is_written(tmp_path):
    pytest.importorskip("matplotlib")
    ablation.plot(TABLE, tmp_path / "ablation.png")
    with Image.open(tmp_path / "ablation.png") as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height


def test_finished_runs_are_read_and_summed_up(tmp_path, monkeypatch, capsys):
    """With all runs done nothing is trained; table, json and plot hold every seed."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(ablation, "subject_path", lambda person: None)
    monkeypatch.setattr(ablation, "load_field", lambda person: None)
    for place, variant in enumerate(ablation.VARIANTS):
        for seed in range(2):
            folder = tmp_path / f"{variant.replace(' ', '_')}_{seed}"
            folder.mkdir()
            figures = dict.fromkeys(ablation.METRICS, place + 10.0 * seed)
            (folder / "results.json").write_text(json.dumps(figures))
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--output", str(tmp_path), "--n_seeds", "2"])
    ablation.main()
    table = json.loads((tmp_path / "ablation.json").read_text())
    assert list(table) == list(ablation.VARIANTS)
    assert table["no auxiliary colour"]["PSNR"] == [3.0, 13.0]
    assert (tmp_path / "ablation.png").stat().st_size > 0
    assert "| no auxiliary colour | 8 ± 7.1 |" in capsys.readouterr().out


def test_without_matplotlib_nothing_is_trained_in_vain(monkeypatch):
    monkeypatch.setattr(ablation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ablation.UserError, match="matplotlib"):
        ablation.check_plotting()
