"""LPIPS of the part of two images that matters equals LPIPS of the whole, for its value and its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common import perceptual, perceptual_crop
from common.gpu import crop
from common.perceptual import TRUNKS, Lpips, random_lpips, sight
from common.perceptual_crop import NOTHING, Box, Sight, part_to_see
from data.dataset import Subject, training_list
from main.train_setup import perceptual_crops

VGG_SIGHT = sight(TRUNKS["vgg"])
LAYERS = ["conv", "conv", "pool"] * 2 + ["conv", "conv", "conv", "pool"] * 2 + ["conv"] * 3  # of VGG16
TAPS = [2, 5, 9, 13, 17]  # how many of the layers come before each comparison


@pytest.fixture(scope="module")
def lpips() -> Iterator[Lpips]:
    """LPIPS whose VGG16 has an eighth of its channels: features see the same, and it is fast."""
    spec = TRUNKS["vgg"]
    thin = {
        layer: (max(n_in // 8, 3), n_out // 8, *rest)
        for layer, (n_in, n_out, *rest) in spec.convolutions.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRUNKS, "vgg", replace(spec, convolutions=thin))
        yield random_lpips("vgg")


def whole_image(model: Lpips, x: Tensor, y: Tensor) -> Tensor:
    """The distance without a crop."""
    distance = x.new_zeros(len(x))
    for head, a, b in zip(model.heads, model.features(x), model.features(y), strict=True):
        distance = distance + ((a - b).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return distance


def images_that_differ_in(boxes: list[Box], height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(len(boxes), 3, height, width, generator=generator)
    y = x.clone()
    for image, box in zip(y, boxes, strict=True):
        part = box.cut(image)
        part.copy_(torch.rand(part.shape, generator=generator))
    return x, y


def value_and_gradients(function, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = function(a, b)
    (value * torch.arange(1.0, len(x) + 1)).sum().backward()
    return value.detach(), a.grad, b.grad


def seen_pixels(model: Lpips, monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of what goes through the network from now on."""
    shapes: list[tuple[int, ...]] = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda x: shapes.append(tuple(x.shape)) or features(x))
    return shapes


@pytest.mark.parametrize(
    ("size", "box", "seen"),
    [
        ((21, 500), Box(0, 9, 0, 5), (21, 192)),  # a corner
        ((21, 500), Box(19, 21, 480, 500), (21, 212)),  # the other one
        ((21, 500), Box(5, 20, 243, 259), (21, 400)),  # the middle
        ((500, 21), Box(490, 491, 7, 8), (196, 21)),  # one pixel at an edge
        ((499, 16), Box(488, 499, 0, 16), (211, 16)),  # the rest that poolings leave out
        ((290, 277), Box(0, 4, 0, 30), (192, 224)),
        ((40, 33), Box(10, 12, 10, 12), (40, 33)),  # too small for a crop
        ((21, 500), Box(0, 21, 0, 500), (21, 500)),  # everything differs
    ],
)
def test_value_and_gradients_are_those_of_the_whole_images(lpips, monkeypatch, size, box, seen):
    x, y = images_that_differ_in([box], *size)
    expected = value_and_gradients(lambda a, b: whole_image(lpips, a, b), x, y)
    shapes = seen_pixels(lpips, monkeypatch)
    found = value_and_gradients(lpips, x, y)
    assert shapes == [(1, 3, *seen)] * 2
    assert expected[0].item() > 1e-4
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_the_real_widths_too():
    model = random_lpips("vgg")
    x, y = images_that_differ_in([Box(3, 16, 0, 6)], 16, 240)
    expected = value_and_gradients(lambda a, b: whole_image(model, a, b), x, y)
    for a, b in zip(value_and_gradients(model, x, y), expected, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_nothing_is_computed_for_equal_images(lpips, monkeypatch):
    x = torch.rand(2, 3, 20, 30)
    shapes = seen_pixels(lpips, monkeypatch)
    value, by_x, by_y = value_and_gradients(lpips, x, x)
    assert shapes == []
    for zeros in (value, by_x, by_y):
        assert torch.equal(zeros, torch.zeros_like(zeros))


def test_every_image_of_a_batch_has_its_own_part(lpips, monkeypatch):
    boxes = [Box(0, 9, 0, 5), NOTHING, Box(19, 21, 470, 490), Box(3, 4, 1, 17), Box(0, 1, 250, 251)]
    x, y = images_that_differ_in(boxes, 21, 500)
    expected = value_and_gradients(lambda a, b: whole_image(lpips, a, b), x, y)
    shapes = seen_pixels(lpips, monkeypatch)
    found = value_and_gradients(lpips, x, y)
    assert shapes == [(1, 3, 21, width) for width in (192, 192, 228, 228, 208, 208, 384, 384)]
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_a_difference_that_is_not_a_number_is_seen(lpips):
    x, y = images_that_differ_in([Box(0, 9, 0, 5)], 21, 500)
    x[0, 0, 20, 480] = y[0, 0, 20, 480] = torch.nan
    assert lpips(x, y).isnan().all()


def spread(marked: Tensor, layer: str) -> Tensor:
    """Which features along a line see a marked one."""
    if layer == "pool":
        return marked[: len(marked) // 2 * 2].view(-1, 2).any(1)
    padded = torch.cat([marked[:1], marked, marked[-1:]])
    return padded[:-2] | padded[1:-1] | padded[2:]


def is_exact(size: int, start: int, stop: int, seen: Sight) -> bool:
    """Whether no feature that sees [start, stop) of a line lies outside the part or sees a border that is a cut."""
    part = part_to_see(Box(0, 1, start, stop), (1, size), seen)
    differs = torch.zeros(size, dtype=torch.bool)
    differs[start:stop] = True
    wrong = torch.zeros(part.right - part.left, dtype=torch.bool)
    level_start = part.left
    for i, layer in enumerate(LAYERS, start=1):
        differs = spread(differs, layer)
        wrong = spread(wrong, layer)
        if layer == "pool":
            level_start //= 2
        else:
            wrong[:1] |= part.left > 0
            wrong[-1:] |= part.right < size
        if i in TAPS:
            rest = differs.clone()
            rest[level_start : level_start + len(wrong)] = False
            if rest.any() or (differs[level_start : level_start + len(wrong)] & wrong).any():
                return False
    return True


def test_no_feature_that_sees_a_difference_sees_a_cut():
    """For every place of a difference along lines of many lengths: an argument in integers for all images."""
    assert VGG_SIGHT is not None
    for size in (16, 17, 200, 431, 640, 645):
        for start in range(0, size, 7):
            for stop in (start + 1, start + 16, start + 97):
                assert is_exact(size, start, min(stop, size), VGG_SIGHT), (size, start, stop)


def test_a_smaller_reach_is_noticed_by_the_test_above():
    assert VGG_SIGHT is not None
    shorter = VGG_SIGHT._replace(reach=VGG_SIGHT.reach - 1)
    assert not all(is_exact(645, start, start + 1, shorter) for start in range(300, 332))


def test_alexnet_looks_at_whole_images(monkeypatch):
    """The evaluation's network; its layers are shifted against each other."""
    model = random_lpips("alex")
    x, y = images_that_differ_in([Box(0, 9, 0, 5)], 40, 500)
    shapes = seen_pixels(model, monkeypatch)
    assert torch.equal(model(x, y), whole_image(model, x, y))
    assert shapes[0] == (1, 3, 40, 500)
    assert perceptual.sight(TRUNKS["alex"]) is None


def test_what_a_graph_looks_at_comes_from_the_masks_of_all_frames_of_its_kind(tiny_demo, monkeypatch):
    monkeypatch.setattr(crop, "SLACK", 2 / 96)
    monkeypatch.setattr(perceptual_crop, "WORTHWHILE", 0.999)
    subject = Subject(tiny_demo)
    keys = training_list(subject)
    crops = perceptual_crops(subject, keys, Sight((1,), 1))
    assert crops.keys() == {(True, 96, 64), (False, 96, 64)}
    for (is_captured, *size), found in crops.items():
        masks = [subject.load(*key).mask[0] > 0 for key in set(keys) if (key[0] == "captured") == is_captured]
        together = Box.around(torch.stack(masks).any(0))
        assert found.expected == together.grown(2, size)
        assert found.part == together.grown(4, size) != Box.whole(size)
    assert all(found.is_whole for found in perceptual_crops(subject, keys, VGG_SIGHT).values())
