"""Posing on the GPU: the kernels of `posing_kernels` with their buffers (SPEC 8, 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.engine import posing_kernels
from common.engine.pose_rows import PoseRow
from common.engine.static_avatar import OffsetNet, StaticAvatar

CHECKED_M = 1e-4  # largest difference of means, metres
NODE_MARGIN_M = 0.02  # grid points this near to where a Gaussian samples at rest are prepared
MIN_CAPABILITY = (8, 0)  # older devices have no matrix units that Triton uses
NET_BLOCK = 64
NET_WARPS = 4
POSE_BLOCK = 32  # Gaussians to a program
POSE_WARPS = 4


class TritonNet:
    """The offset net as one kernel; ValueError where it is of another shape than the kernel's."""

    def __init__(self, net: OffsetNet, n_terms: int) -> None:
        self.net = net
        self.n_terms = n_terms
        norms = [layer for layer in net.layers[0::3] if isinstance(layer, nn.GroupNorm)]
        linears = [layer for layer in net.layers[2::3] if isinstance(layer, nn.Linear)]
        hidden = net.features.shape[1]
        shapes = [tuple(layer.weight.shape) for layer in linears]
        is_known = hidden >= 16 and hidden & (hidden - 1) == 0
        if not is_known or shapes != [(hidden, hidden), (hidden, hidden), (3, hidden)] or len(norms) != 3:
            raise ValueError(f"an offset net of {hidden} channels and layers {shapes}")
        self.n_groups = norms[0].num_groups
        self.norms = torch.stack([torch.stack([norm.weight, norm.bias]) for norm in norms]).contiguous()
        weights = torch.stack([layer.weight.T for layer in linears[:2]]).float()
        coarse = weights.half()
        self.weights = torch.stack([coarse, (weights - coarse).half()], dim=1).contiguous()
        self.biases = torch.stack([layer.bias for layer in linears[:2]]).contiguous()
        last = torch.cat([linears[2].weight, linears[2].bias[:, None]], dim=1)
        self.last = (last / net.divisor).contiguous()
        self.dominant = net.dominant.int()
        self.out = net.features.new_empty(len(net.features), 3)

    def offset(self, pose_6d: Tensor) -> Tensor:
        """Offsets (M, 3) in metres."""
        n = len(self.out)
        posing_kernels.offset_net[(-(-n // NET_BLOCK),)](
            self.net.features,
            self.dominant,
            self.net.by_joint(pose_6d),
            self.weights,
            self.biases,
            self.norms,
            self.last,
            self.out,
            n,
            WIDTH=self.net.features.shape[1],
            GROUPS=self.n_groups,
            TERMS=self.n_terms,
            BLOCK=NET_BLOCK,
            num_warps=NET_WARPS,
        )
        return self.out


class TritonPosing:
    """`StaticAvatar.mean` by kernels: joint transforms are blended at grid points, then looked up like weights."""

    def __init__(self, static: StaticAvatar, n_terms: int = 3) -> None:
        self.static = static
        self.net = None if static.net is None else _net(static.net, n_terms)
        field, device = static.field, static.base.device
        self.table = field.weights.view(-1, field.weights.shape[3])
        size = torch.tensor(field.weights.shape[:3], device=device)
        cells_per_metre = (size - 1) / (field.upper - field.lower)
        self.grid = torch.cat([field.lower, cells_per_metre]).float().contiguous()
        nodes = prepared_nodes(static)
        self.n_nodes = len(nodes)
        self.node_row = torch.full((len(self.table),), -1, dtype=torch.int32, device=device)
        self.node_row[nodes] = torch.arange(len(nodes), dtype=torch.int32, device=device)
        self.weights = torch.cat([self.table[nodes], static.own_weights]).contiguous()
        self.expression_row = torch.full((len(static.base),), -1, dtype=torch.int32, device=device)
        n_expression = len(static.expression_index)
        self.expression_row[static.expression_index] = torch.arange(
            n_expression, dtype=torch.int32, device=device
        )
        self.expression_dirs = static.expression_dirs.flatten(0, 1)
        self.order = static.order.int()
        self.no_offset = static.base.new_zeros(1, 3)
        self.out = torch.empty_like(static.base)
        self.is_missing = torch.zeros(-(-len(self.out) // POSE_BLOCK), dtype=torch.int32, device=device)

    def check(self, pose: PoseRow) -> None:
        """RuntimeError unless the kernels compile and pose the avatar as the torch functions do."""
        self.out.fill_(torch.nan)
        difference = (self.mean(pose) - self.static.mean(pose)).abs().max()
        if not float(difference) <= CHECKED_M:  # also false for NaN
            raise RuntimeError(f"its kernels are off by {float(difference):.3g} m")

    def mean(self, pose: PoseRow) -> Tensor:
        """Means (N, 3) of the posed Gaussians in world space, in the avatar's order; the next call writes over them."""
        moving = (0, 0) if self.net is None else self.static.moving
        offset = self.no_offset if self.net is None else self.net.offset(pose.pose_6d)
        expression = torch.mv(self.expression_dirs, pose.expr)
        blended = self.weights @ pose.blend
        n = len(self.out)
        for from_table in (False, True):
            n_programs = -(-(self.static.n_field if from_table else n) // POSE_BLOCK)
            posing_kernels.pose[(max(n_programs, 1),)](
                self.static.base,
                offset,
                expression,
                self.expression_row,
                self.static.scale,
                self.grid,
                self.node_row,
                blended,
                self.table,
                pose.blend,
                pose.camera.R_inverse_transposed,
                pose.camera.t,
                self.is_missing,
                self.order,
                self.out,
                n,
                self.static.n_field,
                *moving,
                self.n_nodes,
                *self.static.field.weights.shape[:3],
                8,
                J=self.table.shape[1],
                FROM_TABLE=from_table,
                BLOCK=POSE_BLOCK,
                num_warps=POSE_WARPS,
            )
        return self.out


def _net(net: OffsetNet, n_terms: int) -> TritonNet | OffsetNet:
    """The net as a kernel where its shape and the device allow, else in torch."""
    if not _has_matrix_units(net.features.device):
        return net
    try:
        return TritonNet(net, n_terms)
    except ValueError:
        return net


def _has_matrix_units(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def prepared_nodes(static: StaticAvatar) -> Tensor:
    """Grid points (P,) that the Gaussians' samples touch in the neutral pose, and those within the margin of them."""
    field, n = static.field, static.n_field
    size = torch.tensor(field.weights.shape[:3], device=static.base.device)
    cells_per_metre = (size - 1) / (field.upper - field.lower)
    is_near = torch.zeros(tuple(size.tolist()), dtype=torch.bool, device=static.base.device)
    if n == 0:
        return is_near.flatten().nonzero().squeeze(1)
    cell = ((static.base[:n] - field.lower) * cells_per_metre).nan_to_num().floor().long()
    x, y, z = cell.clamp(torch.zeros_like(size), size - 2).unbind(1)
    is_near[x, y, z] = True
    reach = 2 * torch.quantile(static.scale[:: max(1, len(static.scale) // 100_000)], 0.99) + NODE_MARGIN_M
    cells = torch.ceil(reach * cells_per_metre).long().clamp(max=32).tolist()
    grown = is_near[None, None].float()
    for axis, radius in enumerate(cells):  # the centre's cell has points 0 and 1 along each axis
        kernel = [1, 1, 1]
        kernel[axis] = 2 * radius + 2
        padding = [0] * 6
        padding[2 * (2 - axis)], padding[2 * (2 - axis) + 1] = radius + 1, radius
        grown = F.max_pool3d(F.pad(grown, padding), kernel, stride=1)
    return (grown[0, 0] > 0).flatten().nonzero().squeeze(1)
