"""LPIPS: architecture against a straightforward twin, gradients, and how weight files are found and refused.

No real weights are needed: random ones are saved in the format of the published files.
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from common import perceptual
from common.errors import UserError
from common.perceptual import TRUNKS, WeightsMissing, load_lpips

# Convolutions as (index in torchvision's `features`, in, out, kernel, stride, padding), P = max pooling,
# * = compared (Zhang et al. 2018, appendix: conv1-conv5 of AlexNet, conv1_2 ... conv5_3 of VGG16).
ALEXNET = ["0 3 64 11 4 2 *", "P 3 2", "3 64 192 5 1 2 *", "P 3 2", "6 192 384 3 1 1 *", "8 384 256 3 1 1 *",
           "10 256 256 3 1 1 *"]  # fmt: skip
VGG16 = ["0 3 64 3 1 1", "2 64 64 3 1 1 *", "P 2 2", "5 64 128 3 1 1", "7 128 128 3 1 1 *", "P 2 2",
         "10 128 256 3 1 1", "12 256 256 3 1 1", "14 256 256 3 1 1 *", "P 2 2", "17 256 512 3 1 1",
         "19 512 512 3 1 1", "21 512 512 3 1 1 *", "P 2 2", "24 512 512 3 1 1", "26 512 512 3 1 1",
         "28 512 512 3 1 1 *"]  # fmt: skip
PLANS = {"alex": ALEXNET, "vgg": VGG16}
NETS = ["alex", "vgg"]


def random_weights(net: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trunk and heads with the keys of the published files."""
    generator = torch.Generator().manual_seed(3)
    trunk, heads = {}, {}
    for line in PLANS[net]:
        if line.startswith("P"):
            continue
        index, n_in, n_out, kernel = (int(word) for word in line.split()[:4])
        weight = torch.randn(n_out, n_in, kernel, kernel, generator=generator)
        trunk[f"features.{index}.weight"] = weight * (2 / (n_in * kernel**2)) ** 0.5
        trunk[f"features.{index}.bias"] = 0.1 * torch.randn(n_out, generator=generator)
        if line.endswith("*"):
            heads[f"lin{len(heads)}.model.1.weight"] = torch.rand(1, n_out, 1, 1, generator=generator)
    trunk["classifier.6.bias"] = torch.zeros(10)  # published files have classifiers; they are not used
    return trunk, heads


def slow_lpips(net: str, x: Tensor, y: Tensor) -> list[float]:
    """Distances of image pairs (B, 3, H, W) by the text of the paper, one pixel of a layer at a time."""
    trunk, heads = random_weights(net)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    spread = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    a, b = ((2 * image - 1 - shift) / spread for image in (x, y))
    distance = torch.zeros(len(x), dtype=torch.float64)
    level = 0
    for line in PLANS[net]:
        words = line.split()
        if words[0] == "P":
            a, b = (F.max_pool2d(image, int(words[1]), int(words[2])) for image in (a, b))
            continue
        weight, bias = trunk[f"features.{words[0]}.weight"], trunk[f"features.{words[0]}.bias"]
        a, b = (F.conv2d(i, weight, bias, int(words[4]), int(words[5])).clamp(min=0) for i in (a, b))
        if words[-1] == "*":
            head = heads[f"lin{level}.model.1.weight"].flatten().double()
            for n in range(len(x)):
                pixels = zip(a[n].flatten(1).T.double(), b[n].flatten(1).T.double(), strict=True)
                values = [(head * (p / p.norm() - q / q.norm()) ** 2).sum() for p, q in pixels]
                distance[n] += sum(values) / len(values)
            level += 1
    return distance.tolist()


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory) -> Path:
    """A folder with random weights in all four files."""
    folder = tmp_path_factory.mktemp("weights")
    for net in NETS:
        trunk, heads = random_weights(net)
        torch.save(trunk, folder / TRUNKS[net].file_name)
        torch.save(heads, folder / f"{net}.pth", _use_new_zipfile_serialization=False)  # as the lpips package
    return folder


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """An empty torch cache, no `lpips` package, no network."""

    def offline(*_args, **_kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def image_pair() -> Tensor:
    return torch.rand(2, 2, 3, 40, 33, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("net", NETS)
def test_distance_equals_the_papers_definition(net, weights_dir, image_pair):
    x, y = image_pair
    expected = slow_lpips(net, x, y)
    assert load_lpips(net, weights_dir)(x, y).tolist() == pytest.approx(expected, rel=1e-4)
    assert min(expected) > 0.1


@pytest.mark.parametrize("net", NETS)
def test_distance_is_zero_for_equal_images_and_symmetric(net, weights_dir, image_pair):
    model = load_lpips(net, weights_dir)
    x, y = image_pair
    assert torch.equal(model(x, x), torch.zeros(2))
    assert_close(model(x, y), model(y, x))


@pytest.mark.parametrize("net", NETS)
def test_gradient_and_frozen_weights(net, weights_dir):
    model = load_lpips(net, weights_dir).double()
    side = model.min_size_px + 2
    x, y = torch.rand(2, 1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(lambda a: model(a, y), x.requires_grad_(), fast_mode=True)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_gradient_is_finite_where_all_features_are_zero():
    features = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit = perceptual.unit_length(features)
    unit.sum().backward()
    assert torch.equal(unit, torch.zeros_like(unit))
    assert torch.isfinite(features.grad).all()


def test_smallest_image_is_what_the_pools_leave_something_of(weights_dir):
    for net in NETS:
        model = load_lpips(net, weights_dir)
        side = model.min_size_px
        assert torch.isfinite(model(torch.rand(1, 3, side, side), torch.rand(1, 3, side, side))).all()
        too_small = torch.rand(1, 3, side - 1, side)
        with pytest.raises(UserError, match="too small for LPIPS"):
            model(too_small, too_small)


@pytest.mark.parametrize("net", NETS)
def test_nothing_found_names_both_files_and_the_way_without(net, tmp_path):
    with pytest.raises(WeightsMissing) as error:
        load_lpips(net, tmp_path)
    message = str(error.value)
    assert f"download.pytorch.org/models/{TRUNKS[net].file_name}" in message
    assert f"{net}.pth" in message
    assert "--no_lpips" in message
    assert "\n" not in message


def test_only_the_missing_file_is_named(weights_dir, tmp_path):
    (tmp_path / "vgg.pth").write_bytes((weights_dir / "vgg.pth").read_bytes())
    with pytest.raises(
        WeightsMissing, match=r"cannot be downloaded .*no network.*vgg16-397923af\.pth"
    ) as error:
        load_lpips("vgg", tmp_path)
    assert "lpips/weights" not in str(error.value)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"--lpips_weights .*nowhere: no such folder"):
        load_lpips("vgg", tmp_path / "nowhere")


def test_trunk_from_the_hub_cache_and_heads_from_the_package_which_is_not_imported(
    weights_dir, tmp_path, monkeypatch, image_pair
):
    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cache, package = tmp_path / "hub" / "checkpoints", tmp_path / "site" / "lpips"
    cache.mkdir(parents=True)
    (package / "weights" / "v0.1").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('lpips was imported')")
    for folder, name in ((cache, TRUNKS["alex"].file_name), (package / "weights" / "v0.1", "alex.pth")):
        (folder / name).write_bytes((weights_dir / name).read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert_close(load_lpips("alex")(*image_pair), load_lpips("alex", weights_dir)(*image_pair))


def serve(monkeypatch, folder: Path) -> None:
    """Let downloads come from a folder."""

    class Response:
        def __init__(self, path: Path) -> None:
            self.file = path.open("rb")

        def __enter__(self):
            return self.file

        def __exit__(self, *_error):
            self.file.close()

    monkeypatch.setattr(
        urllib.request, "urlopen", lambda url, timeout: Response(folder / url.rsplit("/", 1)[1])
    )


def test_trunk_is_downloaded_into_the_hub_cache(weights_dir, tmp_path, monkeypatch, image_pair):
    content = (weights_dir / TRUNKS["alex"].file_name).read_bytes()
    name = f"alexnet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    online = tmp_path / "online"
    online.mkdir()
    (online / name).write_bytes(content)
    (online / "alex.pth").write_bytes((weights_dir / "alex.pth").read_bytes())
    monkeypatch.setitem(TRUNKS, "alex", replace(TRUNKS["alex"], file_name=name))
    heads = tmp_path / "heads"
    heads.mkdir()
    (heads / "alex.pth").write_bytes((weights_dir / "alex.pth").read_bytes())
    serve(monkeypatch, online)
    model = load_lpips("alex", heads)
    assert (tmp_path / "hub" / "checkpoints" / name).read_bytes() == content
    assert torch.isfinite(model(*image_pair)).all()


def test_a_download_with_another_hash_is_refused_and_leaves_nothing(weights_dir, tmp_path, monkeypatch):
    heads = tmp_path / "heads"
    heads.mkdir()
    (heads / "alex.pth").write_bytes((weights_dir / "alex.pth").read_bytes())
    serve(monkeypatch, weights_dir)
    with pytest.raises(WeightsMissing, match="SHA-256"):
        load_lpips("alex", heads)
    assert list((tmp_path / "hub" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("name", ["vgg16-397923af.pth", "vgg.pth"])
@pytest.mark.parametrize("damage", ["truncated", "text", "other network", "not tensors"])
def test_a_wrong_weight_file_is_refused_by_its_name(weights_dir, tmp_path, name, damage):
    for file in ("vgg16-397923af.pth", "vgg.pth"):
        (tmp_path / file).symlink_to(weights_dir / file)
    (tmp_path / name).unlink()
    if damage == "truncated":
        content = (weights_dir / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    elif damage == "text":
        (tmp_path / name).write_text("<html>not found</html>")
    elif damage == "other network":
        other = {"vgg16-397923af.pth": TRUNKS["alex"].file_name, "vgg.pth": "alex.pth"}[name]
        (tmp_path / name).symlink_to(weights_dir / other)
    else:
        torch.save({"epoch": 3}, tmp_path / name)
    with pytest.raises(UserError) as error:
        load_lpips("vgg", tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert not isinstance(error.value, WeightsMissing)
