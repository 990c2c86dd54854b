"""03 to 07: body, skinning field, avatar, textures and renders."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel, neutral_pose_params
from common.body_model.files import convert_licensed_files
from common.body_model.identity import Identity
from common.camera import Camera
from common.joints import N_JOINTS
from common.pose import SmplxParams, SmplxPose
from common.rasterizer import Splats
from common.rasterizer.torch_backend import project
from common.renders import over
from common.texture import initial_log_scale, sample_vertex_colors, to_logit
from data.dataset import Subject
from tests.golden import scene, test_body_model, test_renders
from tests.golden.keypoints import Keypoints
from tests.golden.other_set.body import MODELS
from tests.golden.other_set.folder import OtherSet, double, plain
from tests.golden.other_set.subject import SUBJECT, moved_params
from tests.golden.test_masks import NAMES

IDENTITY = ("shape_param", "face_offset", "joint_offset")
CAMERA = ("R", "t", "focal", "princpt")
N_SAMPLES = 1100


def body_of(other: OtherSet, n_subdivisions: int = 2, gender: str = "male") -> BodyModel:
    """The new body; its neighbour lists are this project's own."""
    return BodyModel(convert_licensed_files(other.path / MODELS, gender), n_subdivisions)


def identity_of(other: OtherSet) -> Identity:
    """The subject's."""
    return Subject(other.path / SUBJECT, other.sizes.patch).identity


def some_params(other: OtherSet) -> SmplxParams:
    """The photo's pose, moved."""
    return moved_params(other, other.path / SUBJECT / "captured/smplx_optimized/smplx_params/0.json")


def some_camera(other: OtherSet) -> Camera:
    """The photo's."""
    return Subject(other.path / SUBJECT, other.sizes.patch).load("captured", 0).camera


@torch.no_grad()
def make_body_model(other: OtherSet, body: BodyModel) -> None:
    """03_body_model.npz, of a body in float64."""
    keypoints, stored = Keypoints.load(other.path / "assets"), other.drawn_from("03_body_model.npz")
    who, n = identity_of(other), body.n_vertices
    inputs = {f"in_{key}": np.repeat(stored[f"in_{key}"][:1], 2, 0) for key in (
        "global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose",
    )}  # fmt: skip
    inputs = {key: value + other.normal(*value.shape, size=0.1) for key, value in inputs.items()}
    inputs |= {"in_betas": other.normal(2, 100, size=0.7), "in_expression": other.normal(2, 50, size=0.6)}
    inputs |= {"in_transl": other.normal(2, 3), "in_face_offset": other.normal(2, n, 3, size=2e-3)}
    inputs |= {"in_joint_offset": other.normal(2, N_JOINTS, 3, size=1e-2)}
    arrays: dict[str, np.ndarray | Tensor | list] = dict(inputs)
    single = BodyModel(body.data, 0)

    def posed(params: SmplxParams, identity: Identity, mask_root_offset: bool) -> list[Tensor]:
        out = single.vertices(params, identity, mask_root_offset)
        return [out.vertices, keypoints.of(single, out, params)]

    cases = [
        test_body_model.case({key: torch.from_numpy(value) for key, value in inputs.items()}, i)
        for i in (0, 1)
    ]
    out = [posed(params, identity, False) for params, identity in cases]
    arrays["out_vertices"], arrays["out_joints"] = (torch.stack(parts) for parts in zip(*out, strict=True))
    shapes = [Identity(i.shape, torch.zeros(n, 3), torch.zeros(N_JOINTS, 3)) for _, i in cases]
    arrays["out_v_shaped"] = torch.stack([single.shaped(shape).vertices for shape in shapes])
    for name, value in zip(("vertices", "joints"), posed(*cases[0], True), strict=True):
        arrays[f"masked_root_{name}"] = value[None]
    for name, value in zip(("vertices", "joints"), posed(SmplxParams.zeros(), shapes[0], True), strict=True):
        arrays[f"rest_hands_{name}"] = value[None]
    mean = np.zeros((N_JOINTS, 3), np.float32)
    mean[25:] = single.hand_mean
    masked = who.joint_offset.clone()
    masked[0] = 0
    arrays |= {"expr_dirs_after_flame": single.expr_dirs, "pose_mean": mean.reshape(-1)}
    arrays |= {"parents": single.parents, "id_joint_offset_root_masked": masked}
    arrays |= {f"id_{name}": value for name, value in zip(IDENTITY, vars(who).values(), strict=True)}
    neutral = neutral_pose_params(jaw_open=True)
    arrays |= {"neutral_body_pose": neutral.body_pose, "neutral_jaw_pose": neutral.jaw_pose}
    arrays |= _neutral(body, who)
    arrays |= {"kpt_idx": stored["kpt_idx"], "kpt_face_part_idx": stored["kpt_face_part_idx"]}
    params, camera = some_params(other), some_camera(other)
    vertices, points = (camera.camera_to_world(part) for part in posed(params, who, True))
    arrays |= {f"world_in_{name}": value for name, value in vars(params).items()}
    arrays |= {f"world_cam_{name}": getattr(camera, name) for name in CAMERA}
    arrays |= {"world_vertices_lr": vertices, "world_kpt": points[stored["kpt_idx"]]}
    other.write("03_body_model.npz", **arrays)


def _neutral(body: BodyModel, who: Identity) -> dict[str, Tensor]:
    arrays = {}
    for jaw in ("closed", "open"):
        for name, identity in (("id", who), ("noid", None)):
            low = body.neutral_vertices(identity, jaw_open=jaw == "open")
            arrays[f"neutral_jaw{jaw}_{name}_lr"] = low
            arrays[f"neutral_jaw{jaw}_{name}_hr"] = body.subdivider.interpolate(low)
    closed = body.vertices(body.neutral_pose_params(False), who, mask_root_offset=False)
    zero = body.vertices(SmplxParams.zeros(), who)
    return arrays | {
        "neutral_jawclosed_id_joints": closed.joints,
        "zero_pose_lr": zero.vertices,
        "zero_pose_hr": body.subdivider.interpolate(zero.vertices),
        "zero_pose_joints": zero.joints,
    }


def make_masks(other: OtherSet, body: BodyModel) -> None:
    """03_masks.npz, of the body with the stored neighbour lists."""
    arrays: dict[str, np.ndarray | Tensor] = {"is_hand_hr": body.parts_high.hand}
    for name, published in NAMES.items():
        for level, parts in (("lr", body.parts_low), ("hr", body.parts_high)):
            arrays[f"is_{published}_{level}"] = getattr(parts, name)
    data = body.data
    arrays |= {"expr_vertex_idx": data.expression_vertices, "adj_joint_mask_4ring": body.kinematic_reach}
    for side, ids, faces in (
        ("r", data.right_hand_vertices, body.right_hand_faces),
        ("l", data.left_hand_vertices, body.left_hand_faces),
    ):
        place = np.full(body.n_vertices, -1)
        place[ids] = np.arange(len(ids))
        arrays |= {f"{side}hand_vertex_idx": ids, f"{side}hand_face": place[faces]}
    mouth_file = other.path / "mouth_faces.npy"
    mouth = np.load(mouth_file)
    mouth_file.unlink()
    arrays |= {"mouth_faces": mouth, "face_with_mouth_in": np.concatenate([body.faces, mouth])}
    arrays |= {"skinning_weight_orig_hr": body.skinning_weights_high, "expr_dirs_hr": body.expr_dirs_high}
    other.write("03_masks.npz", **arrays)


def make_field(other: OtherSet) -> None:
    """04_skinning_field.npz."""
    body = body_of(other, 0, "neutral")
    arrays = {
        "verts": plain(body.neutral_vertices(None, jaw_open=False)),
        "weights": plain(body.skinning_weights),
        "body_pose": plain(body.neutral_pose_params(False).body_pose),
        "hand_mean_left": plain(body.hand_mean[:15].reshape(-1)),
        "hand_mean_right": plain(body.hand_mean[15:].reshape(-1)),
    }
    for case, settings in zip("abc", other.sizes.fields, strict=True):
        arrays[f"args_{case}"] = plain(np.array(settings, float))
        field = scene.build_field(arrays, case)
        for axis in range(3):
            ends = (float(field.lower[axis]), float(field.upper[axis]))
            arrays[f"coord_{'xyz'[axis]}_{case}"] = plain(np.linspace(*ends, int(settings[0])))
        if case != "b":
            arrays[f"field_{case}"] = plain(field.weights)
            continue
        flat = field.weights.flatten(0, 2)
        index = np.sort(other.rng.choice(len(flat), 2000, replace=False))
        arrays |= {"field_b_flat_idx": index, "field_b_sample": plain(flat[index])}
    resolution, _, threshold, _ = other.sizes.fields[0]
    axes = [arrays[f"coord_{axis}_a"].astype(float) for axis in "xyz"]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distance, _ = cKDTree(arrays["verts"].astype(float)).query(grid)
    arrays["fixed_cells_a"] = (distance < threshold).reshape((resolution,) * 3)
    other.write("04_skinning_field.npz", **arrays)


def make_textures(other: OtherSet, body: BodyModel) -> None:
    """06_texture_init.npz, of a body in float64."""
    textures, who = Subject(other.path / SUBJECT, other.sizes.patch).textures(), identity_of(other)
    layers = {"texture": textures.rgb, "texture_gen": textures.rgb_aux, "seg": textures.seg}
    logits = {name: to_logit(sample_vertex_colors(image.double(), body)) for name, image in layers.items()}
    points = body.subdivider.interpolate(body.neutral_vertices(who, jaw_open=True))
    other.write(
        "06_texture_init.npz",
        **layers,
        vertex_uv=body.vertex_uv,
        face_uv=body.face_uv,
        faces_lr=body.faces,
        rgb_logit=logits["texture"],
        rgb_orig_logit=logits["texture"],
        rgb_aux_logit=logits["texture_gen"],
        seg_logit=logits["seg"],
        scale_points=points,
        scale_log=initial_log_scale(double(plain(points))),  # of the points as they are stored
        pos_enc_vert=body.subdivider.interpolate(body.neutral_vertices(None, jaw_open=True)),
        mean_offset=np.zeros((len(points), 3), np.float32),
    )


def make_state(other: OtherSet) -> None:
    """05_persona_state.npz: the initial avatar, moved at random; the source's offset net, moved."""
    initial, source = other.read("06_texture_init.npz"), other.drawn_from("05_persona_state.npz")
    n_channels, size = source["triplane"].shape[1], other.sizes.triplane
    state = {"triplane": other.normal(3, n_channels, size, size, size=0.3)}
    state["mean_offset"] = other.normal(len(initial["scale_log"]), 3, size=3e-3)
    for name, key in (
        ("scale", "scale_log"),
        ("rgb", "rgb_logit"),
        ("rgb_aux", "rgb_aux_logit"),
        ("seg", "seg_logit"),
    ):
        noise = other.normal(*initial[key].shape, size=0.2 if name == "scale" else 0.5)
        state[name] = initial[key] + noise + (0.1 if name == "scale" else 0)
    state |= {
        name: plain(value) for name, value in zip(IDENTITY, vars(identity_of(other)).values(), strict=True)
    }
    for name, value in source.items():
        if name.startswith("mean_offset_offset_net"):
            state[name] = value + other.normal(*value.shape, size=0.02)
    other.write("05_persona_state.npz", **state)


def make_avatar(other: OtherSet, avatar: Avatar) -> None:
    """05_persona*.npz, of an avatar in float64."""
    params, camera = some_params(other), some_camera(other)
    exact, exact_camera = params.to(torch.float64), camera.to(torch.float64)
    leaves = {name: getattr(exact, name).requires_grad_() for name in vars(exact)}
    pose = SmplxPose.from_params(exact)
    posed = avatar(pose, exact_camera)
    base = avatar.neutral_vertices + avatar.mean_offset
    weights = avatar.skinning_weights(base)
    offset = avatar.pose_offset(pose, weights)
    refined = avatar.skinning_weights(base + offset + avatar.body.expr_dirs_high @ pose.expr)
    n, parts = len(base), avatar.body.parts_high
    sample = np.sort(other.rng.choice(n, N_SAMPLES, replace=False))
    features = weights.new_zeros(n, 3 * avatar.triplane.shape[1])
    features[avatar.moving_index] = avatar.triplane_features()
    template = avatar.body.subdivider.interpolate(avatar.body.neutral_vertices(None, jaw_open=True))
    other.write(
        "05_persona.npz",
        sample_idx=sample,
        **{f"smplx_{name}": value for name, value in vars(params).items()},
        **{f"cam_{name}": getattr(camera, name) for name in CAMERA},
        pos_enc_vert=template,
        vert_neutral_pose=avatar.neutral_vertices,
        joint_zero_pose=avatar.zero_pose_joints,
        skinning_weight=weights,
        skinning_weight_refined_sample=refined[sample],
        joint_idx_argmax=weights.argmax(1),
        tri_feat_sample=features[sample],
        mean_offset_offset=offset,
        mean_offset=avatar.mean_offset,
        transform_mat_joint=avatar.transforms(pose),
        mean_3d=posed.base_mean,
        mean_3d_refined=posed.refined_mean,
        vert=posed.vertices,
        scale=posed.scale.expand(-1, 3),
        rotation=np.tile(np.array([[1.0, 0, 0, 0]]), (n, 1)),
        opacity=np.ones((n, 1)),
        rgb=posed.appearance.rgb,
        **{
            "is_hand": parts.hand,
            "is_face": parts.face,
            "is_face_expr": parts.expression,
            "is_eye": parts.eye,
        },
    )
    random = other.normal(n, 3)
    arrays: dict[str, np.ndarray | Tensor] = {"random_weight": random}
    without = {}
    parameters = dict(avatar.named_parameters())
    for prefix, name, mean in (
        ("grad", "refined", posed.refined_mean),
        ("grad_unrefined", "unrefined", posed.base_mean),
    ):
        loss = (mean * double(random)).sum()
        wanted = {**{f"{prefix}_pose.{k}": v for k, v in leaves.items()}}
        wanted |= {f"{prefix}.{k}": v for k, v in parameters.items()}
        found = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True, allow_unused=True)
        arrays[f"loss_{name}"] = loss
        arrays |= {k: g for k, g in zip(wanted, found, strict=True) if g is not None}
        without[f"no_gradient_{name}"] = [k for k in parameters if f"{prefix}.{k}" not in arrays]
    other.write("05_persona_grads.npz", **arrays)
    other.write_json("05_no_gradient.json", without)
    _make_out_of_field(other, avatar, exact_camera)


def _make_out_of_field(other: OtherSet, avatar: Avatar, camera: Camera) -> None:
    """What the published system does there: no weights, and the Gaussian falls into the camera."""
    index = other.rng.choice(avatar.diffused_index.numpy(), 9, replace=False)
    centre = camera.camera_to_world(torch.zeros(3, dtype=torch.float64))
    other.write(
        "05_out_of_field.npz",
        vertex_idx=index,
        added_offset=np.array([0.0, 6.0, 0.0]),
        skinning_weight=np.zeros((len(index), N_JOINTS)),
        joint_idx_argmax=np.zeros(len(index), np.int64),
        mean_3d=np.tile(centre, (len(index), 1)),
        mean_3d_refined=np.tile(centre, (len(index), 1)),
        camera_centre_world=centre,
    )


def make_renders(other: OtherSet, avatar: Avatar) -> None:
    """07_renders_*.npz, of an avatar in float64; the tests' own renders under the published names."""
    subject = Subject(other.path / SUBJECT, other.sizes.patch)
    for name, split, index in (("captured", "captured", 0), ("generated_identity_cam", "generated_1", 0)):
        frame = subject.load(split, index)
        params = frame.params
        inputs: dict[str, np.ndarray | Tensor] = {
            **{f"cam_{key}": getattr(frame.camera, key) for key in CAMERA},
            **{f"cam_face_{key}": getattr(frame.face_camera, key) for key in CAMERA},
            **{f"smplx_{key}": value for key, value in vars(params).items()},
            "captured_img": frame.image,
            "captured_face_patch": frame.face_patch,
            "img_black": torch.zeros_like(frame.image),
            "patch_face_img": torch.zeros_like(frame.face_patch),
        }
        file = f"07_renders_{name}.npz"
        other.write(file, **inputs)
        rendered = test_renders.Rendered(name, other.read, avatar)
        other.write(file, **inputs, **_posed(rendered))
        rendered = test_renders.Rendered(name, other.read, avatar, is_in_place=True)  # as rounded there
        results = _render_results(rendered, has_patch=frame.is_captured)
        other.write(file, **(inputs | _posed(rendered) | results))


def _posed(rendered: test_renders.Rendered) -> dict[str, np.ndarray | Tensor]:
    """Places of Gaussians and vertices."""
    posed = rendered.posed
    return {
        "asset_mean_3d": posed.base_mean,
        "asset_refined_mean_3d": posed.refined_mean,
        "asset_scale": posed.scale.expand(-1, 3),
        "asset_rgb": posed.appearance.rgb,
        "vert_hr_world": posed.vertices,
        "smplx_vert_lr_world": rendered.vertices,
        "testmode_smplx_vert": rendered.vertices,
        "pos_enc_for_boundary": posed.base_neutral,
    }


def _render_results(rendered: test_renders.Rendered, has_patch: bool) -> dict[str, np.ndarray | Tensor]:
    posed, loss = rendered.posed, test_renders.LOSS
    mask = rendered.images["mask"]
    gaussians = posed.base
    splats = Splats(
        *(gaussians.mean, gaussians.scale, None, None, rendered.camera, gaussians.rgb),
        is_detached=(False,) * 3,
        background=torch.zeros(3, dtype=torch.float64),
    )
    prints = project(splats)
    radius = torch.zeros(len(gaussians.mean), dtype=torch.int32)
    radius[prints.index] = prints.radius_px.int()
    view = rendered.view_refined
    results: dict[str, np.ndarray | Tensor] = {
        **rendered.images,
        **rendered.mesh_masks,
        "radius": radius,
        "testmode_img_refined": over(view["image"], view["mask"], 1.0),
        "testmode_mask_refined": (view["mask"] > 0.9).float(),
        "testmode_mask": (rendered.view["mask"] > 0.9).float(),
        **test_renders.boundary_maps_of(rendered),
    }
    sizes = {
        "kernel_size": (mask, loss.boundary_ratio),
        "kernel_size_006": (mask, loss.boundary_ratio_patch),
        "patch_kernel_size": (rendered.images["patch_face_mask"], loss.boundary_ratio_patch),
    }
    for name, (image, ratio) in sizes.items():
        is_used = has_patch or name != "patch_kernel_size"
        results[name] = np.array(test_renders.dilation_kernel_size(image, ratio) if is_used else 0)
    for prefix in ("", "face_"):
        camera = (rendered.face_camera if prefix else rendered.camera).to(torch.float32)
        view_matrix, projection = scene.view_and_projection(camera)
        size = torch.tensor([camera.width, camera.height])
        results |= {f"{prefix}view_matrix": view_matrix, f"{prefix}proj_matrix": projection}
        results[f"{prefix}fov"] = 2 * torch.atan(size / (2 * camera.focal))
    return results
