"""From the viewer's state to Gaussians in world space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.avatar import Avatar, apply_transforms, blend_transforms
from common.camera import Camera
from common.engine.pose_rows import BLEND_COLUMNS, PoseRow
from common.engine.static_avatar import StaticAvatar
from common.gaussians import Gaussians
from common.mesh import vertex_normals
from common.pose import SmplxPose, rotation_to_6d
from common.viewer.state import Look, ViewerState, edited, same_but_frame, up_of
from common.viewer.track import Track, pelvis_of

KEPT_BYTES = 512 * 2**20  # of positions


class Scene:
    """One avatar on one timeline. What a state shows depends on the state and the camera alone.

    What no pose changes is computed once. Positions of the motion's frames are kept while nothing but the frame
    changes: a change of colours moves nothing again, and a motion's second round costs nothing.
    """

    @torch.no_grad()
    def __init__(self, avatar: Avatar, track: Track) -> None:
        self.avatar = avatar
        self.track = track
        appearance = avatar.appearance
        self._rgb, self._seg = appearance.rgb, appearance.seg
        self._scale = torch.exp(avatar.scale)
        self._refined = StaticAvatar.of(avatar)
        self._base = avatar.neutral_vertices + avatar.mean_offset
        self._base_weights = avatar.skinning_weights(self._base)
        self._n_kept = max(1, KEPT_BYTES // (self._base.element_size() * self._base.numel()))
        self._kept: dict[int | None, Tensor] = {}  # frame -> means
        self._kept_of = ViewerState()

    @torch.no_grad()
    def gaussians(self, state: ViewerState, eye: Camera) -> Gaussians:
        """What the state shows, seen from `eye`: depth and normals are those of its picture."""
        mean = self.mean(state)
        return Gaussians(mean, self._scale, self._colours(state.look, mean, eye.to(mean.device)))

    @torch.no_grad()
    def mean(self, state: ViewerState) -> Tensor:
        """Where the state puts the Gaussians (N, 3), world space, metres; the same tensor while they stay there."""
        if not same_but_frame(self._kept_of, state) or len(self._kept) >= self._n_kept:
            self._kept, self._kept_of = {}, state
        if state.frame not in self._kept:
            device = self._base.device
            pose, camera = self.posed(state)
            place = self._refined_mean if state.is_refined else self._base_mean
            self._kept[state.frame] = place(pose.to(device), camera.to(device)) + self._ground_shift(
                state
            ).to(device)
        return self._kept[state.frame]

    def posed(self, state: ViewerState) -> tuple[SmplxPose, Camera]:
        """The state's pose, edits included, and the camera in whose space it is."""
        pose, camera = self.track.pose(state.frame)
        return edited(pose, state.edit), camera

    def pelvis(self, state: ViewerState) -> Tensor:
        """Where the state's pelvis is (3,), world space, metres."""
        pose, camera = self.track.pose(state.frame)
        return camera.camera_to_world(pelvis_of(self.avatar, pose)) + self._ground_shift(state)

    def _base_mean(self, pose: SmplxPose, camera: Camera) -> Tensor:
        blended = blend_transforms(self._base_weights, self.avatar.transforms(pose))
        neutral = self._base + self.avatar.body.expr_dirs_high @ pose.expr
        return camera.camera_to_world(apply_transforms(blended, neutral))

    def _refined_mean(self, pose: SmplxPose, camera: Camera) -> Tensor:
        transforms = self.avatar.transforms(pose)[:, :3].reshape(-1, 12)
        blend = F.pad(transforms, (0, BLEND_COLUMNS - 12))
        row = PoseRow(blend, rotation_to_6d(pose.body_rotation), pose.expr, camera)
        return self._refined.mean(row)

    def _ground_shift(self, state: ViewerState) -> Tensor:
        """World translation (3,) that keeps the pelvis above the place where the motion begins."""
        if not state.stays_in_place:
            return torch.zeros(3)
        (pose, camera), (first_pose, first_camera) = self.track.pose(state.frame), self.track.pose(0)
        here = camera.camera_to_world(pelvis_of(self.avatar, pose))
        way = first_camera.camera_to_world(pelvis_of(self.avatar, first_pose)) - here
        up = up_of(self.track.camera.R)
        return way - (way @ up) * up

    def _colours(self, look: Look, mean: Tensor, eye: Camera) -> Tensor:
        if look == "parts":
            return self._seg
        if look == "depth":
            return depth_colours(eye.world_to_camera(mean)[:, 2])
        if look == "normal":
            return normal_colours(vertex_normals(mean, self.avatar.body.faces_high), eye)
        return self._rgb


def depth_colours(depth: Tensor) -> Tensor:
    """Greys (N, 3) of camera depths (N,): the nearest white, the farthest black."""
    nearest, farthest = depth.min(), depth.max()
    grey = (farthest - depth) / (farthest - nearest).clamp(min=1e-6)
    return grey[:, None].expand(-1, 3)


def normal_colours(normal: Tensor, eye: Camera) -> Tensor:
    """World normals (N, 3) as colours: x right, y up, z towards the camera, from [-1, 1] to [0, 1] (SPEC 3)."""
    in_camera = eye.rotate_to_camera(normal)
    return ((in_camera * in_camera.new_tensor([1.0, -1.0, -1.0]) + 1) / 2).clamp(0, 1)
