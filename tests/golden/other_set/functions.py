"""01 and 02, 07_rasteriser* and 12: mesh operators, image functions and rasterizer, of random inputs."""

from __future__ import annotations

import numpy as np
import roma
import torch
from torch import Tensor

from common import losses
from common.body_model.body import BodyModel
from common.boundary import dilate
from common.camera import Camera
from common.mesh import MAX_NEIGHBOURS, NeighbourLists, laplacian, subdivide, vertex_normals
from common.photo_panel import PANEL_EXTENT, warp_box
from common.rasterizer import Splats, torch_backend
from common.rasterizer.interface import FILTER_PX2, NEAR_M
from common.rectangle import Rectangle
from tests.golden import scene
from tests.golden.other_set.folder import OtherSet, double

PATCH_ASPECT_RATIO = 0.7


def make_subdivision(other: OtherSet, body: BodyModel) -> None:
    """01_subdivision.npz."""
    first = subdivide(body.faces, body.n_vertices)
    second = subdivide(first.faces, first.n_vertices)
    per_vertex = {
        "verts": body.v_template,
        "feat": torch.from_numpy(other.normal(body.n_vertices, 5)),
        "flag": body.parts_low.expression[:, None].float(),
    }
    arrays = {"vertex_num_hr": np.array(second.n_vertices)}
    for level, n in (("lr", 0), ("l1", 1), ("hr", 2)):
        arrays[f"faces_{level}"] = (body.faces, first.faces, second.faces)[n]
        for name, values in per_vertex.items():
            fine = values.double()
            for step in (first, second)[:n]:
                fine = step.interpolate(fine)
            if name != "flag" or level != "l1":
                arrays[f"{name}_{level}"] = fine
    other.write("01_subdivision.npz", edges_lr=first.edges, edges_l1=second.edges, **arrays)


def cut_at_random(other: OtherSet, faces: np.ndarray, n_vertices: int) -> tuple[NeighbourLists, np.ndarray]:
    """Neighbour lists in any order, cut at ten, and how many neighbours each vertex has."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    pairs = pairs[other.rng.permutation(len(pairs))]
    index = np.tile(np.arange(n_vertices)[:, None], (1, MAX_NEIGHBOURS))
    filled, degree = np.zeros(n_vertices, int), np.bincount(pairs[:, 0], minlength=n_vertices)
    for vertex, neighbour in pairs:
        if filled[vertex] < MAX_NEIGHBOURS:
            index[vertex, filled[vertex]] = neighbour
            filled[vertex] += 1
    weight = np.where(np.arange(MAX_NEIGHBOURS) < filled[:, None], -1 / np.maximum(filled, 1)[:, None], 0)
    return NeighbourLists(torch.from_numpy(index), torch.from_numpy(weight)), degree


def make_mesh_operators(other: OtherSet) -> None:
    """02_mesh_operators.npz."""
    mesh, arrays = other.read("01_subdivision.npz"), {}
    for level in ("lr", "hr"):
        vertices, faces = mesh[f"verts_{level}"], mesh[f"faces_{level}"]
        lists, degree = cut_at_random(other, faces, len(vertices))
        if level == "lr":
            arrays["degree_lr"] = degree
        x, y = other.normal(1, len(vertices), 3), other.normal(1, len(vertices), 3)
        lap_x, lap_y = laplacian(double(x[0]), lists)[None], laplacian(double(y[0]), lists)[None]
        arrays |= {
            f"verts_{level}": vertices,
            f"faces_{level}": faces,
            f"normals_{level}": vertex_normals(double(vertices), torch.from_numpy(faces)),
            f"neighbor_idx_{level}": lists.index,
            f"neighbor_weight_{level}": lists.weight,
            f"x_{level}": x,
            f"laplacian_x_{level}": lap_x,
        }
        if level == "hr":
            arrays |= {"y_hr": y, "lapreg_x_none_hr": lap_x**2, "lapreg_x_y_hr": (lap_x - lap_y) ** 2}
    image, mask = other.uniform(1, 6, 9, 14), other.uniform(1, 6, 9, 14) > 0.3
    masked = losses.total_variation(double(image), torch.from_numpy(mask))
    arrays |= {"tv_img": image, "tv_mask": mask}
    arrays |= {"tv_masked": masked, "tv_unmasked": losses.total_variation(double(image))}
    other.write("02_mesh_operators.npz", **arrays)


def make_functions(other: OtherSet) -> None:
    """02_functions.npz."""
    height, width = 19, 27
    arrays: dict[str, Tensor | np.ndarray] = {
        **_image_losses(other, height, width),
        "binary": (other.uniform(1, 1, height, width) > 0.93).astype(np.float32),
    }
    binary = double(np.asarray(arrays["binary"]))
    arrays |= {f"dilate_{size}": dilate(binary[0], size)[None] for size in (1, 3, 5)}
    padded = torch.nn.functional.pad(double(np.asarray(arrays["img_out"])), (1, 1, 1, 1), mode="replicate")
    smooth = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = smooth[:, None] * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / 8
    kernels = torch.stack([kernel, kernel.T])[:, None]
    planes = torch.nn.functional.conv2d(padded.transpose(0, 1), kernels)
    arrays["sobel"] = planes[None]
    arrays |= _boxes(other)
    camera = Camera.identity((97.0, 104.0), (41.25, 20.5), 51, 77)
    half = torch.atan(torch.tensor([camera.width, camera.height]) / (2 * camera.focal))
    arrays |= {
        "cam_focal": camera.focal,
        "cam_princpt": camera.princpt,
        "cam_shape_hw": np.array([camera.height, camera.width]),
        "fov": 2 * half,
        "proj_matrix": scene.view_and_projection(camera)[1],
    }
    other.write("02_functions.npz", **arrays)


def _image_losses(other: OtherSet, height: int, width: int) -> dict[str, Tensor | np.ndarray]:
    image, target = other.uniform(1, 3, height, width), other.uniform(1, 3, height, width)
    target = (target + 2 * image) / 3
    x, y = double(image).requires_grad_(), double(target)
    loss = losses.image_loss(x, y)
    (gradient,) = torch.autograd.grad(loss.mean(), x)
    arrays: dict[str, Tensor | np.ndarray] = {
        "img_out": image, "img_tgt": target, "ssim_map": losses.ssim_map(x, y), "img_loss": loss,
        "img_loss_grad": gradient,
    }  # fmt: skip
    maps = {}
    for name, n in (("depth", 1), ("normal", 3), ("seg", 3)):
        out, tgt = (other.uniform(1, n, height, width) for _ in range(2))
        is_valid = other.uniform(2, 1, height, width) > 0.2
        out = out if name == "seg" else out * is_valid[0]
        tgt = (tgt + 0.01) * is_valid[1]
        factors = (3, 7) if name == "depth" else (1, 1)
        arrays |= {f"{name}_out": out * np.float32(factors[0]), f"{name}_tgt": tgt * np.float32(factors[1])}
        maps[name] = double(np.asarray(arrays[f"{name}_out"])[0]).requires_grad_()
    targets = {name: double(np.asarray(arrays[f"{name}_tgt"])[0]) for name in maps}
    functions = {"depth": losses.depth_loss, "normal": losses.normal_loss, "seg": losses.part_loss}
    terms = {name: functions[name](maps[name], targets[name]) for name in maps}
    nothing = torch.zeros(1, height, width, dtype=torch.float64)
    total = losses.geometry_loss(nothing, nothing, *terms.values(), frame_factor=1.0)
    gradients = torch.autograd.grad(total.mean(), list(maps.values()))
    arrays |= {f"{name}_loss": term[None] if term.ndim else term for name, term in terms.items()}
    arrays |= {f"geo_grad_{name}": grad[None] for name, grad in zip(maps, gradients, strict=True)}
    return arrays | {"geo_loss": total[None]}


def _boxes(other: OtherSet) -> dict[str, Tensor | np.ndarray]:
    height, width, box_in = 26, 38, Rectangle(9.0, 4.0, 20.0, 11.0)
    image = other.uniform(28, 45, 3) * 255
    box = box_in.extended(PANEL_EXTENT, aspect_ratio=PATCH_ASPECT_RATIO)
    crop = Camera.identity((1.0, 1.0), (0.0, 0.0), *image.shape[:2]).crop(torch.tensor(box), height, width)
    matrix = torch.cat([torch.diag(crop.focal), crop.princpt[:, None]], 1)
    square = torch.cat([matrix, torch.tensor([[0.0, 0.0, 1.0]])])
    points, is_valid = other.uniform(14, 2) * 31, (other.uniform(14) > 0.4).astype(np.float32)
    return {
        "patch_src": image,
        "patch_bbox_in": np.array(box_in),
        "patch_bbox": np.array(box),
        "patch": 255 * warp_box(double(image / 255).permute(2, 0, 1), box, height, width).permute(1, 2, 0),
        "patch_trans": matrix,
        "patch_inv_trans": square.inverse()[:2],
        "kpt": points,
        "kpt_valid": is_valid,
        "kpt_bbox": np.array(Rectangle.around(points[is_valid > 0]).extended(1.2)),
        "kpt_bbox_10": np.array(Rectangle.around(points[is_valid > 0])),
    }


class Splatting:
    """A scene and what the reference rasterizer makes of it in float64."""

    def __init__(self, other: OtherSet, camera: Camera, scene_arrays: dict[str, np.ndarray]) -> None:
        self.camera = camera.to(torch.float64)
        self.leaves = {name: double(value).requires_grad_() for name, value in scene_arrays.items()}
        self.background = other.uniform(3)
        self.weight = other.normal(3, camera.height, camera.width)
        self.splats = Splats(
            self.leaves["mean"],
            self.leaves["scale"],
            self.leaves["rotation"],
            self.leaves["opacity"][:, 0],
            self.camera,
            self.leaves["rgb"],
            (False, False, False),
            double(self.background),
        )
        self.prints = torch_backend.project(self.splats)
        self.image = torch_backend.render(self.splats).detach()

    def gradients(self, is_exact: bool = False) -> dict[str, Tensor]:
        """Of mean, scale, rgb and opacity."""
        image = torch_backend.render(self.splats, exact_gradients=is_exact)
        names = ("mean", "scale", "rgb", "opacity")
        found = torch.autograd.grad((image * double(self.weight)).sum(), [self.leaves[n] for n in names])
        return dict(zip(names, found, strict=True))

    def mean_2d_gradient(self) -> Tensor:
        """Of the projected means in clip space."""
        kept: list[torch_backend.Footprints] = []
        own = torch_backend.project

        def project(splats: Splats, exact_gradients: bool = False) -> torch_backend.Footprints:
            prints = own(splats, exact_gradients)
            prints.mean_px.retain_grad()
            kept.append(prints)
            return prints

        torch_backend.project = project
        try:
            (torch_backend.render(self.splats) * double(self.weight)).sum().backward()
        finally:
            torch_backend.project = own
        result = torch.zeros(len(self.leaves["mean"]), 2, dtype=torch.float64)
        gradient = kept[0].mean_px.grad
        assert gradient is not None
        result[kept[0].index] = gradient * torch.tensor([self.camera.width, self.camera.height]) / 2
        return result

    def per_gaussian(self, values: Tensor) -> Tensor:
        """Values of the drawn ones, zero for the others."""
        result = values.new_zeros(len(self.leaves["mean"]), *values.shape[1:])
        result[self.prints.index] = values
        return result

    @property
    def radius(self) -> np.ndarray:
        """As stored."""
        return self.per_gaussian(self.prints.radius_px).int().numpy()


def _cloud(other: OtherSet, n: int, camera: Camera, is_general: bool) -> dict[str, np.ndarray]:
    """Gaussians in front of the camera, some behind it."""
    depth = other.rng.uniform(-0.5, 4, n)
    pixels = other.rng.uniform(-0.2, 1.2, (n, 2)) * (camera.width, camera.height)
    xy = (pixels - camera.princpt.numpy()) / camera.focal.numpy() * depth[:, None]
    mean = camera.camera_to_world(torch.from_numpy(np.concatenate([xy, depth[:, None]], 1)).float()).numpy()
    scale = np.repeat(0.01 + 0.08 * other.uniform(n, 1), 3, 1)
    rotation = np.tile(np.array([[1.0, 0, 0, 0]], np.float32), (n, 1))
    opacity = np.ones((n, 1), np.float32)
    if is_general:
        scale, opacity = scale * (0.3 + other.uniform(n, 3)), other.uniform(n, 1)
        rotation = other.normal(n, 4)
        rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    return {
        "mean": mean,
        "scale": scale,
        "rotation": rotation,
        "opacity": opacity,
        "rgb": other.uniform(n, 3),
    }


def _camera(other: OtherSet, height: int, width: int) -> Camera:
    R = roma.rotvec_to_rotmat(torch.from_numpy(other.normal(3, size=0.4)))
    t, focal = torch.tensor([0.1, 0.05, 0.3]), torch.tensor([1.1 * width, 1.2 * width])
    return Camera(R, t, focal, torch.tensor([0.46 * width, 0.55 * height]), height, width)


def make_cuda_rasterizer(other: OtherSet) -> None:
    """12_rasterizer_cuda."""
    for i, (n, height, width) in enumerate(((333, 70, 50), (2100, 61, 97), (444, 45, 83))):
        camera = _camera(other, height, width)
        arrays = _cloud(other, n, camera, is_general=i == 2)
        done = Splatting(other, camera, arrays)
        gradients = done.gradients()
        other.write(
            f"12_rasterizer_cuda/public_{i}.npz",
            means=arrays["mean"],
            scales=arrays["scale"],
            quats_wxyz=arrays["rotation"],
            opacities=arrays["opacity"],
            rgb=arrays["rgb"],
            background=done.background,
            **{key: getattr(camera, key) for key in ("R", "t", "focal", "princpt")},
            image_size=np.array([height, width]),
            kernel_size=np.array(FILTER_PX2),
            image=done.image,
            radii=done.radius,
            grad_image=done.weight,
            grad_means=gradients["mean"],
            grad_scales=gradients["scale"],
            grad_rgb=gradients["rgb"],
            grad_opacities=gradients["opacity"],
        )


def _stored_as_07(done: Splatting, arrays: dict[str, np.ndarray], camera: Camera, rotation: str) -> dict:
    names = {"mean": "mean_3d", "scale": "scale", "rgb": "rgb", "opacity": "opacity"}
    view, projection = scene.view_and_projection(camera)
    return {
        **{key: arrays[name] for name, key in names.items()},
        rotation: arrays["rotation"],
        "bg": done.background,
        **{f"cam_{key}": getattr(camera, key) for key in ("R", "t", "focal", "princpt")},
        "kernel_size": np.array(FILTER_PX2),
        "view_matrix": view,
        "proj_matrix": projection,
        "img": done.image,
        "radius": done.radius,
        "random_weight": done.weight,
        **{f"grad_{names[name]}": value for name, value in done.gradients().items()},
    }


def make_stress(other: OtherSet) -> None:
    """07_rasteriser_stress.npz."""
    camera = _camera(other, 51, 37)
    arrays = _cloud(other, 310, camera, is_general=True)
    arrays["scale"][:20] *= 5
    arrays["scale"][20:40] = 1e-4
    done = Splatting(other, camera, arrays)
    prints, stored = done.prints, _stored_as_07(done, arrays, camera, "rotation_wxyz")
    depth = done.camera.world_to_camera(done.leaves["mean"])[:, 2]
    is_drawn = torch.zeros(len(depth), dtype=torch.bool)
    is_drawn[prints.index] = True
    assert (depth[is_drawn] > NEAR_M).all()
    exact = done.gradients(is_exact=True)
    other.write(
        "07_rasteriser_stress.npz",
        **stored,
        shape_hw=np.array([camera.height, camera.width]),
        means_2d_pixel=done.per_gaussian(prints.mean_px),
        conic=done.per_gaussian(prints.conic),
        opacity_times_coef=done.per_gaussian(prints.opacity),
        depth=depth,
        tile_rect_lo=done.per_gaussian(prints.tile_lo),
        tile_rect_hi=done.per_gaussian(prints.tile_hi),
        visible=is_drawn,
        **{f"grad_exact_{key}": exact[name] for name, key in
           (("mean", "mean_3d"), ("scale", "scale"), ("rgb", "rgb"), ("opacity", "opacity"))},
    )  # fmt: skip


def make_rasterizer_of_avatar(other: OtherSet) -> None:
    """07_rasteriser.npz: the posed avatar of 07_renders_captured.npz."""
    posed = other.read("07_renders_captured.npz")
    height, width = posed["img_black"].shape[1:]
    camera = scene.camera_of(posed, height, width)
    n = len(posed["asset_mean_3d"])
    arrays = {
        "mean": posed["asset_mean_3d"],
        "scale": posed["asset_scale"],
        "rgb": posed["asset_rgb"],
        "opacity": np.ones((n, 1), np.float32),
        "rotation": np.tile(np.array([[1.0, 0, 0, 0]], np.float32), (n, 1)),
    }
    done = Splatting(other, camera, arrays)
    stored = _stored_as_07(done, arrays, camera, "rotation")
    other.write("07_rasteriser.npz", grad_mean_2d=done.mean_2d_gradient(), **stored)
