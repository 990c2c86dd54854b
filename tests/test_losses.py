"""Loss terms: known answers, slow twins, gradients (SPEC 12)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common import losses


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def images(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def slow_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of two planes (H, W), pixel by pixel with the 2D window; outside the image everything is 0."""
    offsets = range(-5, 6)
    window = {(i, j): math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i in offsets for j in offsets}
    norm = sum(window.values())
    height, width = x.shape
    result = torch.zeros_like(x)
    for row, column in itertools.product(range(height), range(width)):
        sums = [0.0] * 5
        for (i, j), weight in window.items():
            if 0 <= row + i < height and 0 <= column + j < width:
                a, b = float(x[row + i, column + j]), float(y[row + i, column + j])
                for k, value in enumerate((a, b, a * a, b * b, a * b)):
                    sums[k] += weight / norm * value
        mean_a, mean_b, aa, bb, ab = sums
        covariance = ab - mean_a * mean_b
        variances = aa - mean_a**2 + bb - mean_b**2
        result[row, column] = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
            (mean_a**2 + mean_b**2 + 1e-4) * (variances + 9e-4)
        )
    return result


def test_ssim_map_equals_its_definition_pixel_by_pixel(generator):
    x, y = images(generator, 2, 13, 9)
    assert_close(losses.ssim_map(x, y), slow_ssim(x, y), atol=1e-12, rtol=0)


def test_ssim_map_of_equal_images_is_one(generator):
    x = images(generator, 3, 20, 14)
    assert_close(losses.ssim_map(x, x), torch.ones_like(x), atol=1e-12, rtol=0)


def test_ssim_map_in_float32_stays_near_float64(generator):
    x, y = images(generator, 2, 3, 40, 30)
    assert_close(losses.ssim_map(x.float(), y.float()).double(), losses.ssim_map(x, y), atol=5e-5, rtol=0)


def test_separable_filter_equals_the_2d_window(generator):
    x = images(generator, 4, 3, 17, 23)
    window = losses.gaussian_window(11, 1.5, x)
    kernel = (window[:, None] * window)[None, None]
    expected = torch.nn.functional.conv2d(x.reshape(-1, 1, 17, 23), kernel, padding=5).reshape(x.shape)
    assert_close(losses.gaussian_filter(x, padding=5), expected, atol=1e-12, rtol=0)


def test_image_loss_of_a_batch_equals_each_image_alone(generator):
    x, y = images(generator, 2, 3, 3, 16, 12)
    together = losses.image_loss(x, y)
    for i in range(3):
        assert_close(together[i], losses.image_loss(x[i], y[i]))


def test_image_loss_mixes_its_three_parts(generator):
    x, y = images(generator, 2, 2, 3, 16, 12)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean((1, 2, 3))

    expected = (
        0.8 * (x - y).abs()
        + 0.2 * (1 - losses.ssim_map(x, y))
        + (x - y).square().mean((1, 2, 3)).view(2, 1, 1, 1)
    )
    assert_close(losses.image_loss(x, y, distance), expected)
    assert_close(losses.image_loss(x[0], y[0], distance), expected[0])
    assert_close(losses.image_loss(x, y, distance, 1.0, 0.0, 0.0), (x - y).abs())


def test_image_losses_batches_pairs_by_size_and_keeps_their_names_and_order(generator):
    small, large = images(generator, 2, 3, 12, 14), images(generator, 2, 3, 20, 16)
    batches = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        batches.append(len(a))
        return (a - b).abs().mean((1, 2, 3))

    pairs = {"a": (small[0], small[1]), "b": (large[0], large[1]), "c": (small[1], small[0])}
    found = losses.image_losses(pairs, distance)
    assert list(found) == ["a", "b", "c"]
    assert batches == [2, 1]
    for name, (x, y) in pairs.items():
        assert_close(found[name], losses.image_loss(x, y, distance))


def test_image_loss_gradient(generator):
    x, y = images(generator, 2, 3, 7, 6)
    assert torch.autograd.gradcheck(lambda a: losses.image_loss(a, y), x.requires_grad_())


def test_photo_weight_is_a_tenth_on_boundaries():
    assert_close(losses.photo_weight(torch.tensor([0.0, 1.0])), torch.tensor([1.0, 0.1]))


def test_boundary_pair_is_held_to_constant_auxiliary_colours(generator):
    own, aux = images(generator, 3, 5, 5).requires_grad_(), images(generator, 3, 5, 5).requires_grad_()
    boundary = (images(generator, 1, 5, 5) > 0.5).double()
    x, y = losses.boundary_pair(own, aux, boundary)
    assert not y.requires_grad
    x.sum().backward()
    assert_close(own.grad, boundary.expand(3, -1, -1))
    assert torch.equal(y, (boundary * aux).detach())


def slow_total_variation(image: Tensor, mask: Tensor) -> float:
    """One image (C, H, W)."""
    totals = []
    for di, dj in ((1, 0), (0, 1)):
        count, total = 0, 0.0
        for c, i, j in itertools.product(*(range(n) for n in image.shape)):
            if i + di < image.shape[1] and j + dj < image.shape[2]:
                count += 1
                if mask[c, i, j] and mask[c, i + di, j + dj]:
                    total += float(image[c, i, j] - image[c, i + di, j + dj]) ** 2
        totals.append(total / count)
    return sum(totals)


def test_total_variation_counts_differences_inside_the_mask_and_averages_over_all(generator):
    image = images(generator, 3, 6, 4)
    mask = images(generator, 3, 6, 4) > 0.3
    assert float(losses.total_variation(image, mask)) == pytest.approx(slow_total_variation(image, mask))
    everywhere = torch.ones_like(mask)
    assert float(losses.total_variation(image)) == pytest.approx(slow_total_variation(image, everywhere))


def test_hand_total_variation_uses_each_hands_own_mask(generator):
    hands = images(generator, 6, 8, 7)
    masks = torch.stack([torch.zeros(8, 7), torch.ones(8, 7)]).double()
    own = losses.total_variation(hands[3:])
    assert_close(
        losses.hand_rgb_tv_reg(hands, masks), own / 2
    )  # half of the elements belong to the other hand
    assert losses.hand_rgb_tv_reg(hands, masks * 0.9) == 0  # the mask must be over 0.9


def depth_pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    depth, target = images(generator, 2, 1, 9, 8) + 0.5
    depth[0, :2], target[0, :, :2] = 0, 0
    return depth, target


def slow_depth_loss(depth: Tensor, target: Tensor) -> float:
    valid = [
        (i, j) for i, j in itertools.product(range(9), range(8)) if depth[0, i, j] > 0 and target[0, i, j] > 0
    ]
    scaled = []
    for image in (depth, target):
        values = [float(image[0, i, j]) for i, j in valid]
        scaled.append([(v - min(values)) / (max(values) - min(values) + 1e-4) for v in values])
    pairs = zip(*scaled, strict=True)
    logs = [math.log(b) - math.log(a) for a, b in pairs if a > 0 and b > 0]
    mean = sum(logs) / len(logs)
    return math.sqrt(sum(d * d for d in logs) / len(logs) - 0.5 * mean * mean)


def test_depth_loss_equals_its_definition(generator):
    depth, target = depth_pair(generator)
    assert float(losses.depth_loss(depth, target)) == pytest.approx(slow_depth_loss(depth, target), rel=1e-12)


def test_depth_loss_hardly_depends_on_scale_and_shift_of_either_depth(generator):
    depth, target = depth_pair(generator)
    changed = torch.where(target > 0, 70 * target + 30, target)
    assert_close(losses.depth_loss(depth, changed), losses.depth_loss(depth, target), rtol=2e-3, atol=0)


def test_depth_loss_gradient(generator):
    depth, target = depth_pair(generator)
    valid = depth > 0

    def loss(values: Tensor) -> Tensor:
        return losses.depth_loss(torch.zeros_like(depth).masked_scatter(valid, values), target)

    assert torch.autograd.gradcheck(loss, depth[valid].requires_grad_())


@pytest.mark.parametrize("case", ["no overlap", "one pixel", "equal", "constant"])
def test_depth_loss_without_anything_to_compare_is_zero_with_zero_gradient(case):
    depth, target = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    if case == "no overlap":
        depth[0, 0], target[0, 1] = 1, 1
    elif case == "one pixel":
        depth[0, 0, 0], target[0, 0, 0] = 2, 3
    elif case == "equal":
        depth = target = torch.arange(16.0).view(1, 4, 4)
    else:
        depth, target = depth + 1, torch.arange(16.0).view(1, 4, 4)
    depth = depth.clone().requires_grad_()
    loss = losses.depth_loss(depth, target)
    loss.backward()
    assert loss == 0
    assert torch.equal(depth.grad, torch.zeros_like(depth))


def test_normal_loss_is_zero_for_equal_unit_normals_and_where_either_is_missing(generator):
    unit = torch.nn.functional.normalize(images(generator, 3, 6, 5) - 0.5, dim=0)
    normal = (unit + 1) / 2
    assert losses.normal_loss(normal, normal).abs().max() < 1e-12
    opposite = (1 - unit) / 2
    missing = torch.zeros(6, 5, dtype=torch.bool)
    missing[2] = True
    for a, b in ((normal * ~missing, opposite), (normal, opposite * ~missing)):
        loss = losses.normal_loss(a, b)
        assert torch.equal(loss[:, missing], torch.zeros_like(loss[:, missing]))
        assert_close(loss[:, ~missing], (2 * unit.abs() + 2)[:, ~missing])


def test_part_loss_counts_only_where_the_target_is_not_black(generator):
    seg, target = images(generator, 2, 3, 6, 5)
    target[:, 1] = 0
    target[:2, 2] = 0  # one channel is enough
    loss = losses.part_loss(seg, target)
    assert torch.equal(loss[:, 1], torch.zeros_like(loss[:, 1]))
    assert_close(loss[:, 2:], (seg - target).abs()[:, 2:])


def test_geometry_loss_weighs_all_but_the_mask(generator):
    mask, mask_target = images(generator, 2, 1, 6, 5)
    normal, part = images(generator, 2, 3, 6, 5)
    depth = torch.tensor(3.0, dtype=torch.float64)
    found = losses.geometry_loss(mask, mask_target, depth, normal, part, frame_factor=0.1)
    assert_close(found, (mask - mask_target).abs() + (0.03 + normal + part) * 0.1)
    assert found.shape == (3, 6, 5)


def test_smoothness_weight_of_hands_and_expression_boundary_overrides_the_faces():
    is_expression = torch.tensor([0, 1, 0, 0, 1, 0]).bool()
    is_eye = torch.tensor([0, 0, 1, 0, 0, 0]).bool()
    is_hand = torch.tensor([0, 0, 0, 1, 0, 0]).bool()
    is_boundary = torch.tensor([0, 0, 0, 0, 1, 0]).bool()
    weight = losses.smoothness_weight(is_expression, is_eye, is_hand, is_boundary)
    assert torch.equal(weight, 1e5 * torch.tensor([[1.0], [50], [50], [10], [10], [1]]))


def test_lap_mean_keeps_the_templates_detail_on_kept_vertices_only(generator):
    lap, template = images(generator, 2, 4, 3)
    weight = images(generator, 4, 1)
    is_kept = torch.tensor([True, False, True, False])
    expected = torch.where(is_kept[:, None], (lap - template) ** 2, lap**2) * weight
    assert_close(losses.lap_mean(lap, template, weight, is_kept), expected)
    refined = losses.lap_mean_refined(lap, weight, is_kept)
    assert_close(refined, torch.where(is_kept[:, None], 0.0, weight * lap**2))


def test_lap_scale_adds_the_means_of_both_meshes():
    high, low = torch.tensor([[1.0], [2], [3], [0]]), torch.tensor([[2.0], [0]])
    assert losses.lap_scale(high, low) == (1 + 4 + 9) / 4 + 4 / 2


def test_colour_priors_hold_constants(generator):
    rgb = images(generator, 5, 3).requires_grad_()
    aux = images(generator, 5, 3).requires_grad_()
    is_hand = torch.tensor([True, False, True, False, False])
    hand = losses.hand_rgb_reg(rgb, aux, is_hand)
    assert_close(hand, (rgb - aux)[is_hand] ** 2)
    hand.sum().backward()
    assert aux.grad is None
    assert torch.equal(rgb.grad[~is_hand], torch.zeros(3, 3, dtype=torch.float64))

    rgb.grad = None
    inside, outside = torch.tensor([1, 0, 0, 0, 0]).bool(), torch.tensor([0, 0, 0, 1, 1]).bool()
    mouth = losses.mouth_in_rgb_reg(rgb, inside, outside)
    assert_close(mouth, (rgb[:1] - rgb[3:].mean(0)) ** 2)
    mouth.sum().backward()
    assert torch.equal(rgb.grad[1:], torch.zeros(4, 3, dtype=torch.float64))


def test_terms_are_averaged_then_weighted_and_empty_ones_are_zero():
    nothing = torch.zeros(3, dtype=torch.bool)
    rgb = torch.rand(3, 3, requires_grad=True)
    terms = {
        "a": torch.tensor([[1.0, 3.0]]),
        "b": torch.tensor(4.0),
        "mouth": losses.mouth_in_rgb_reg(rgb, nothing, nothing),
    }
    found = losses.reduce_terms(terms, {"a": 10.0, "b": 0.5, "mouth": 2.0})
    assert {name: value.item() for name, value in found.items()} == {"a": 20.0, "b": 2.0, "mouth": 0.0}
    found["mouth"].backward()
    assert torch.equal(rgb.grad, torch.zeros(3, 3))


def test_a_term_without_a_factor_is_an_error():
    with pytest.raises(KeyError, match="img"):
        losses.reduce_terms({"img": torch.ones(1)}, {})


@pytest.mark.parametrize(
    "box", [(9, 20, 4, 30), (0, 3, 30, 37), (22, 23, 0, 1), (0, 25, 0, 37), (8, 8, 8, 8)]
)
def test_dissimilarity_near_differences_equals_that_of_the_whole_image(box, generator):
    top, bottom, left, right = box
    target = images(generator, 2, 3, 25, 37)
    image = target.clone()
    image[..., top:bottom, left:right] = images(generator, 2, 3, bottom - top, right - left)
    image.requires_grad_(True)
    weight = images(generator, *image.shape)
    whole = 1 - losses.ssim_map(image, target)
    near = losses.dissimilarity_map(image, target)
    assert_close(near, whole, rtol=0, atol=1e-12)
    if image.detach().equal(target):
        assert not near.any()
        return
    (expected,) = torch.autograd.grad((whole * weight).sum(), image)
    (actual,) = torch.autograd.grad((near * weight).sum(), image)
    assert_close(actual, expected, rtol=0, atol=1e-12)
