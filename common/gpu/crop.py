"""The part of a kind of frames that LPIPS looks at; in a CUDA graph it is fixed, and checked on the device."""

from __future__ import annotations

from torch import Tensor

from common.gpu.rooms import is_capturing, watch
from common.perceptual_crop import NOTHING, Box, Sight, Size, part_to_see

SLACK = 0.04  # of the longer side, around masks and differences: avatars move and grow while they are trained


class Crop:
    """Where images of one size are expected to differ, and so what LPIPS looks at; at first, all of them."""

    def __init__(self, size: Size, sight: Sight) -> None:
        self.size, self.sight = size, sight
        self.slack_px = round(SLACK * max(size))
        self.expected = NOTHING
        self.part = Box.whole(size)

    def expect(self, differing: Box) -> None:
        """Images may differ in this box too, and a little around it."""
        if differing.area:
            self.expected = self.expected.joined(differing.grown(self.slack_px, self.size))
            self.part = part_to_see(self.expected, self.size, self.sight)

    @property
    def is_whole(self) -> bool:
        """Whether LPIPS looks at whole images."""
        return self.part == Box.whole(self.size)

    def check(self, x: Tensor, y: Tensor) -> None:
        """Compare images (B, 3, H, W) with y: if they differ where that is not expected, make the part larger.

        In a graph it cannot change: there the step is flagged, like one that needs more room.
        """
        if self.is_whole:
            return
        differs = (x.detach() != y).flatten(0, 1).any(0)
        self.expected.cut(differs).fill_(False)
        if is_capturing(x.device):
            watch(differs.any(), 0)
        else:
            self.expect(Box.around(differs))
