"""The loss terms (SPEC 12) as pure functions of tensors.

A term is an unreduced map; `reduce_terms` averages each over all its elements and applies its factor from the
config. No factor of the table is hidden here; constants inside a formula are named default arguments.

| term of SPEC 12                                                | made by                                  |
|----------------------------------------------------------------|------------------------------------------|
| img, img_albedo, img_refined, img_aux_refined, patch_face      | image_losses, times photo_weight         |
| img_boundary, img_boundary_refined, patch_face_boundary        | image_losses of a boundary_pair          |
| geo, geo_refined                                               | geometry_loss(depth_, normal_, part_loss)|
| mask_hand, face_geo, mask_eye, patch_mask_face, patch_face_geo | absolute_difference                      |
| every other                                                    | the function of its name                 |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from common import gpu
from common.constants import constant
from common.gaussians import rows
from common.perceptual_crop import Box

# LPIPS or None: two image batches (B, 3, H, W) in [0, 1] -> one number per image (B,).
Perceptual = Callable[[Tensor, Tensor], Tensor]


def gaussian_window(size: int, sigma: float, like: Tensor) -> Tensor:
    """Normalised 1D Gaussian (size,) centred on its middle, in the dtype and on the device of `like`."""
    position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    window = torch.exp(-position.square() / (2 * sigma**2))
    return constant(tuple((window / window.sum()).tolist()), like)


def gaussian_filter(images: Tensor, size: int = 11, sigma: float = 1.5, padding: int = 0) -> Tensor:
    """Separable Gaussian filter of (..., H, W) with `padding` zeros on every side."""
    height, width = images.shape[-2:]
    planes = images.reshape(1, -1, height, width)
    n_planes = planes.shape[1]
    window = gaussian_window(size, sigma, images)
    rows = window.view(1, 1, 1, size).expand(n_planes, 1, 1, size)
    columns = window.view(1, 1, size, 1).expand(n_planes, 1, size, 1)
    planes = F.conv2d(planes, rows, padding=(0, padding), groups=n_planes)
    planes = F.conv2d(planes, columns, padding=(padding, 0), groups=n_planes)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])


def structural_similarity(
    x: Tensor, y: Tensor, size: int, sigma: float, c1: float, c2: float, padding: int
) -> Tensor:
    """SSIM (Wang et al. 2004, eq. 13) of (..., H, W) at every position of the Gaussian window."""
    # Apart, so that a constant y costs nothing in the backward pass.
    mean_x, mean_xx, mean_xy = gaussian_filter(torch.stack([x, x * x, x * y]), size, sigma, padding).unbind(0)
    mean_y, mean_yy = gaussian_filter(torch.stack([y, y * y]), size, sigma, padding).unbind(0)
    mean_product = mean_x * mean_y
    mean_squares = mean_x.square() + mean_y.square()
    luminance = (2 * mean_product + c1) / (mean_squares + c1)
    structure = (2 * (mean_xy - mean_product) + c2) / (mean_xx + mean_yy - mean_squares + c2)
    return luminance * structure


def ssim_map(
    x: Tensor, y: Tensor, size: int = 11, sigma: float = 1.5, c1: float = 1e-4, c2: float = 9e-4
) -> Tensor:
    """SSIM map of images in [0, 1] with zero padding, (..., H, W) like the inputs."""
    return structural_similarity(x, y, size, sigma, c1, c2, padding=size // 2)


def differing_box(x: Tensor, y: Tensor, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around all pixels where x and y (..., H, W) differ, grown by `margin`."""
    box = Box.around((x.detach() != y.detach()).flatten(0, -3).any(0))
    if not box.area:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(box.top - margin, 0), box.bottom + margin),
        slice(max(box.left - margin, 0), box.right + margin),
    )


def dissimilarity_map(x: Tensor, y: Tensor, radius: int = 5) -> Tensor:
    """1 - SSIM map of images (..., H, W), computed only where it is not 0: within a window of a difference."""
    if gpu.is_on(x):
        from common.gpu.ssim import dissimilarity

        return dissimilarity(x, y, gaussian_window(2 * radius + 1, 1.5, x), 1e-4, 9e-4)
    height, width = x.shape[-2:]
    # With windows around all pixels that a difference reaches.
    rows, columns = differing_box(x, y, margin=2 * radius)
    if rows.stop == 0:
        return torch.zeros_like(x)
    box = (..., rows, columns)
    rest = (columns.start, max(width - columns.stop, 0), rows.start, max(height - rows.stop, 0))
    inside = 1 - ssim_map(x[box], y[box], size=2 * radius + 1)
    # Along a cut the windows are incomplete, and the images are equal as far as any window there reaches.
    kept = torch.ones(inside.shape[-2:], dtype=torch.bool, device=x.device)
    kept[: min(rest[2], radius)] = False
    kept[kept.shape[0] - min(rest[3], radius) :] = False
    kept[:, : min(rest[0], radius)] = False
    kept[:, kept.shape[1] - min(rest[1], radius) :] = False
    return F.pad(inside * kept, rest)


def image_loss(
    x: Tensor,
    y: Tensor,
    perceptual: Perceptual | None = None,
    l1_factor: float = 0.8,
    ssim_factor: float = 0.2,
    perceptual_factor: float = 1.0,
) -> Tensor:
    """L_img of images (..., 3, H, W) in [0, 1]: 0.8 |x - y| + 0.2 (1 - SSIM) + LPIPS, per element."""
    assert x.shape == y.shape and x.shape[-3] == 3, (x.shape, y.shape)
    loss = l1_factor * (x - y).abs() + ssim_factor * dissimilarity_map(x, y)
    if perceptual is None:
        return loss
    distance = perceptual(x.reshape(-1, *x.shape[-3:]), y.reshape(-1, *y.shape[-3:]))
    return loss + perceptual_factor * distance.reshape(*x.shape[:-3], 1, 1, 1)


def image_losses(
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    perceptual: Perceptual | None = None,
    l1_factor: float = 0.8,
    ssim_factor: float = 0.2,
    perceptual_factor: float = 1.0,
) -> dict[str, Tensor]:
    """L_img of several named pairs of images (3, H, W); pairs of one size are computed as one batch."""
    by_size: dict[torch.Size, list[str]] = {}
    for name, (x, _) in pairs.items():
        by_size.setdefault(x.shape, []).append(name)
    losses: dict[str, Tensor] = {}
    for names in by_size.values():
        x = torch.stack([pairs[name][0] for name in names])
        targets = [pairs[name][1] for name in names]
        loss = image_loss(
            x,
            torch.stack(targets),
            _of_targets(perceptual, targets),
            l1_factor,
            ssim_factor,
            perceptual_factor,
        )
        losses.update(zip(names, loss.unbind(0), strict=True))
    return {name: losses[name] for name in pairs}


def _of_targets(perceptual: Perceptual | None, targets: list[Tensor]) -> Perceptual | None:
    """The perceptual loss; one that can, is told which of the targets are the same image."""
    if perceptual is None or not hasattr(perceptual, "at_once"):
        return perceptual
    different = list({id(target): target for target in targets}.values())
    which = [next(i for i, other in enumerate(different) if other is target) for target in targets]
    return lambda x, _: perceptual(x, different, which)  # type: ignore[call-arg, arg-type]


def photo_weight(boundary: Tensor, boundary_factor: float = 0.1) -> Tensor:
    """Weight of a photo's image losses: 0.1 on depth boundaries (1, H, W; 0 or 1), 1 elsewhere."""
    return boundary_factor * boundary + (1 - boundary)


def boundary_pair(detached_image: Tensor, aux_image: Tensor, boundary: Tensor) -> tuple[Tensor, Tensor]:
    """The two images of a boundary term: own colours there, held to the auxiliary ones (constant)."""
    return boundary * detached_image, boundary * aux_image.detach()


def absolute_difference(x: Tensor, target: Tensor) -> Tensor:
    """|x - target|; the target is constant."""
    return (x - target.detach()).abs()


def total_variation(images: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of neighbours over (C, H, W), down plus right: (..., C, H, W) -> (...).

    With a mask (same shape, bool) a difference counts only where both pixels are inside; elsewhere it is a
    zero that the mean includes.
    """
    down = (images[..., 1:, :] - images[..., :-1, :]).square()
    right = (images[..., 1:] - images[..., :-1]).square()
    if mask is not None:
        down = down * (mask[..., 1:, :] & mask[..., :-1, :])
        right = right * (mask[..., 1:] & mask[..., :-1])
    return down.mean((-3, -2, -1)) + right.mean((-3, -2, -1))


def depth_loss(depth: Tensor, target: Tensor, eps: float = 1e-4, variance_factor: float = 0.5) -> Tensor:
    """Scale- and shift-invariant depth loss of one image (1, H, W), a scalar; 0 if nothing can be compared.

    Each depth is normalised to [0, 1] over the pixels where both are positive; the loss is the
    scale-invariant log error of Eigen et al. 2014 over the pixels where both stay positive.
    """

    def normalised(values: Tensor) -> Tensor:
        low, high = values.min(), values.max()
        return (values - low) / (high - low + eps)

    if gpu.is_on(depth):
        return _depth_loss_without_branches(depth, target, eps, variance_factor)
    nothing = depth.sum() * 0
    is_valid = (depth > 0) & (target > 0)
    if not is_valid.any():
        return nothing
    output, reference = normalised(depth[is_valid]), normalised(target[is_valid])
    is_positive = (output > 0) & (reference > 0)
    if not is_positive.any():
        return nothing
    difference = reference[is_positive].log() - output[is_positive].log()
    error = difference.square().mean() - variance_factor * difference.mean().square()
    return error.sqrt() if error > 0 else nothing


def _depth_loss_without_branches(depth: Tensor, target: Tensor, eps: float, variance_factor: float) -> Tensor:
    """`depth_loss` in fixed shapes, for CUDA graphs."""
    is_valid = (depth > 0) & (target > 0)

    def normalised(values: Tensor) -> Tensor:
        low = torch.where(is_valid, values, torch.inf).amin()
        high = torch.where(is_valid, values, -torch.inf).amax()
        return (torch.where(is_valid, values, low) - low) / (high - low + eps)

    output, reference = normalised(depth), normalised(target)
    is_positive = is_valid & (output > 0) & (reference > 0)
    count = is_positive.sum().clamp(min=1)
    output, reference = (torch.where(is_positive, values, 1.0) for values in (output, reference))
    difference = reference.log() - output.log()  # 0 where it does not count
    error = difference.square().sum() / count - variance_factor * (difference.sum() / count).square()
    is_error = error > 0
    return torch.where(is_error, torch.where(is_error, error, 1.0).sqrt(), 0.0)


def normal_loss(normal: Tensor, target: Tensor) -> Tensor:
    """|n - n'| + 1 - n . n' of normals (3, H, W) that are stored as (n + 1) / 2.

    0 where either is exactly 0 in all channels (no normal there).
    """
    is_valid = (normal != 0).any(-3, keepdim=True) & (target != 0).any(-3, keepdim=True)
    n, n_target = 2 * normal - 1, 2 * target - 1
    difference = (n - n_target).abs() + 1 - (n * n_target).sum(-3, keepdim=True)
    return difference * is_valid


def part_loss(seg: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of part colours (3, H, W) where the target is not 0 in all channels."""
    return (seg - target).abs() * (target != 0).any(-3, keepdim=True)


def geometry_loss(
    mask: Tensor,
    mask_target: Tensor,
    depth: Tensor,
    normal: Tensor,
    part: Tensor,
    frame_factor: float,
    depth_factor: float = 0.01,
) -> Tensor:
    """geo: |mask - M| + (0.01 depth + normal + part) * frame_factor, (3, H, W).

    `depth` (scalar), `normal`, `part` (3, H, W) come from the three functions above; `frame_factor` is 0.1 on
    photos, 1 on generated frames and when fitting. The mask's part is outside it (as published).
    """
    return (mask - mask_target).abs() + (depth_factor * depth + normal + part) * frame_factor


def smoothness_weight(
    is_expression: Tensor,
    is_eye: Tensor,
    is_hand: Tensor,
    is_expression_boundary: Tensor,
    base: float = 1e5,
    face_factor: float = 50.0,
    hand_factor: float = 10.0,
) -> Tensor:
    """w (N, 1) of the positional smoothness terms: hands and expression boundary override face and eyes."""
    weight = torch.ones(len(is_hand), 1, device=is_hand.device)
    weight[is_expression | is_eye] = face_factor
    weight[is_hand | is_expression_boundary] = hand_factor
    return weight * base


def lap_mean(lap_offset_mean: Tensor, lap_template: Tensor, weight: Tensor, is_kept: Tensor) -> Tensor:
    """w (L(v + offset) - L(v))^2 where the template's detail is kept, w L(v + offset)^2 elsewhere, (N, 3).

    lap_* (N, 3): Laplacians (common.mesh.laplacian) of the neutral means with and without offset;
    weight (N, 1); is_kept (N,) bool: hands, eyes and expression vertices.
    """
    reference = torch.where(is_kept[:, None], lap_template, torch.zeros_like(lap_template))
    return weight * (lap_offset_mean - reference).square()


def lap_mean_refined(lap_posed_mean: Tensor, weight: Tensor, is_kept: Tensor) -> Tensor:
    """w L(posed refined means)^2 outside hands, eyes and expression vertices, (N, 3)."""
    return weight * lap_posed_mean.square() * ~is_kept[:, None]


def lap_scale(lap_high: Tensor, lap_low: Tensor) -> Tensor:
    """Mean L(scale)^2 on the subdivided mesh plus mean L(scale of its first V vertices)^2 on the mesh itself.

    lap_high (N, 1), lap_low (V, 1): Laplacians of the activated scale, metres. Scalar.
    """
    return lap_high.square().mean() + lap_low.square().mean()


def lap_rgb(lap_colour: Tensor) -> Tensor:
    """L(rgb)^2 of the activated colours, (N, 3)."""
    return lap_colour.square()


def hand_rgb_tv_reg(hand_images: Tensor, hand_masks: Tensor, threshold: float = 0.9) -> Tensor:
    """Total variation of the hand images (6, H, W) inside the rendered masks (2, H, W) > 0.9; a scalar."""
    is_hand = (hand_masks > threshold).repeat_interleave(3, dim=-3)
    return total_variation(hand_images, is_hand)


def hand_rgb_reg(rgb: Tensor, rgb_aux: Tensor, hand: Tensor) -> Tensor:
    """Squared difference of a hand's colours to its auxiliary ones (constant); both activated, (N, 3).

    `hand`: indices or a bool mask of the hands' Gaussians.
    """
    return (rows(rgb, hand) - rows(rgb_aux, hand).detach()).square()


def mouth_in_rgb_reg(rgb: Tensor, mouth_inside: Tensor, mouth_outside: Tensor) -> Tensor:
    """Squared difference of the mouth's inner colours to the mean colour around it (constant), (M, 3).

    `mouth_inside`, `mouth_outside`: indices or bool masks.
    """
    inside, outside = rows(rgb, mouth_inside), rows(rgb, mouth_outside)
    if len(outside) == 0:
        return inside * 0
    return (inside - outside.mean(0).detach()).square()


def reduce_terms(terms: Mapping[str, Tensor], factors: Mapping[str, float]) -> dict[str, Tensor]:
    """Each term averaged over its elements, times its factor; the total is their plain sum.

    A term without elements (a body without a mouth, say) is 0.
    """
    return {
        name: factors[name] * (term.mean() if term.numel() else term.sum()) for name, term in terms.items()
    }
