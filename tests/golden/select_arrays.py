"""Write tests/golden/arrays, the compact selection of a full golden directory.

    python tests/golden/select_arrays.py FULL_DIR

Everything is compressed anew; an array that another file has too is kept once; some arrays are limited to a part of
their rows or columns, or rounded far below the tests' tolerance; what is big beside its worth is left out. What was
left out and where else an array is, is written to `arrays/selection.json`, which conftest.py reads.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = Path(__file__).parent / "arrays"
LIMIT_BYTES = 10_000_000
DEFLATE_LEVEL = 9
WRITTEN_BY_HAND = ("README.md",)

# Files, or arrays as file:array, that are left out, and why.
UNUSED = "to stay small: a full directory has it"
OTHER_FRAMES = "0.1 MB each; the same is kept for other frames"
LEFT_OUT = {
    "README.md": "the selection has a README of its own",
    "assets/human_model_files/mano/*": UNUSED,
    "assets/human_model_files/flame/flame_static_embedding.pkl": UNUSED,
    "10_checkpoint/*.pth": "5 MB",
    "10_motion_renders.npz:mean_3d*": "belongs to 10_checkpoint/snapshot_0.pth",
    "10_motion_renders.npz:refined*": "belongs to 10_checkpoint/snapshot_0.pth",
    "10_motion_renders_bkg.npz": UNUSED,
    "01_subdivision.npz:verts_l1": "0.1 MB; the feature is interpolated alike",
    "01_subdivision.npz:verts_hr": "0.1 MB; the feature is interpolated alike",
    "03_body_model.npz:zero_pose_hr": "0.1 MB; the low-resolution vertices are kept",
    "04_skinning_field.npz:field_a": "3 MB; built from verts and weights where it is needed",
    "07_renders_*.npz:pos_enc_for_boundary": UNUSED,
    "07_renders_*.npz:testmode_*_refined": UNUSED,
    "07_renders_*.npz:asset_rgb": UNUSED,
    "07_renders_*.npz:asset_scale": UNUSED,
    "07_renders_generated_identity_cam.npz:asset_*mean_3d": OTHER_FRAMES,
    "07_renders_*.npz:vert_hr_world": "0.1 MB each; the vertices of 05_persona.npz are kept",
    "08_losses_*.npz:total.*": UNUSED,
}

# The rows or columns that are kept of an array; rows alike in all arrays that belong together.
LIMITED: dict[str, Any] = {
    "01_subdivision.npz:feat_*": np.s_[..., :1],
    "02_mesh_operators.npz:[xy]_*": np.s_[..., :1],
    "02_mesh_operators.npz:lap*": np.s_[..., :1],
    "03_masks.npz:expr_dirs_hr": np.s_[..., :2],
    "04_skinning_field.npz:field_b_*": np.s_[::4],
    "05_persona.npz:sample_idx": np.s_[::8],
    "05_persona.npz:*_sample": np.s_[::8],
}

# Results (never inputs) that are rounded to multiples of this.
ROUNDED = {
    "04_skinning_field.npz:field_*": 2.0**-20,  # the tests allow 1e-5
    "05_persona.npz:skinning_weight*": 2.0**-20,  # 1e-5
    "05_persona.npz:tri_feat_sample": 2.0**-20,  # 1e-6
    "05_persona.npz:mean_3d*": 2.0**-18,  # 2e-5
    "05_persona.npz:vert": 2.0**-18,
    "06_texture_init.npz:*_aux_logit": 2.0**-17,  # 1e-5 after the sigmoid
    "06_texture_init.npz:seg_logit": 2.0**-17,
    **{
        f"07_renders_*.npz:{image}": 2.0**-16  # 5e-5 on average, 1e-3 for nearly all pixels
        for image in (
            *("img_*", "depth*", "normal*", "seg", "face_img_init", "hand_img", "*mask", "mask_refined"),
            *("patch_face_img*", "patch_geo_detach", "testmode_[idn]*", "boundary_posenc_render"),
            "boundary_gradient_magnitude",
        )
    },
}

# Gradients (results too) are kept to this many bits, a relative 3e-5 each; the tests allow 1e-4 and more of their norm.
GRADIENT_BITS = 14
GRADIENTS = (
    "05_persona_grads.npz:grad*",
    "07_rasteriser*.npz:grad_*",
    "08_losses_*.npz:term.*",
    "12_rasterizer_cuda/*.npz:grad_[!i]*",  # grad_image is an input
)


def main() -> None:
    """Replace the selection by that of the directory given on the command line."""
    (full,) = (Path(argument) for argument in sys.argv[1:])
    clear(ARRAYS)
    same_as: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    for source in sorted(path for path in full.rglob("*") if path.is_file()):
        name = source.relative_to(full).as_posix()
        if lookup(LEFT_OUT, name) is not None:
            continue
        target = ARRAYS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != ".npz":
            shutil.copyfile(source, target)
            continue
        with np.load(source) as arrays:
            kept = select(name, dict(arrays))
        if not name.startswith("assets/"):
            kept = drop_duplicates(name, kept, seen, same_as)
        write_npz(target, kept)
    index = {"left_out": LEFT_OUT, "same_as": same_as}
    (ARRAYS / "selection.json").write_text(json.dumps(index, indent=1) + "\n")
    n_bytes = sum(path.stat().st_size for path in ARRAYS.rglob("*") if path.is_file())
    print(f"{ARRAYS}: {n_bytes / 1e6:.2f} MB")
    if n_bytes > LIMIT_BYTES:
        sys.exit(f"that is more than {LIMIT_BYTES / 1e6:.0f} MB: leave out more")


def clear(folder: Path) -> None:
    """Remove everything but what is written by hand."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in WRITTEN_BY_HAND:
            path.unlink()


def lookup(table: dict[str, Any], name: str) -> Any:
    """The value of the first pattern that fits."""
    return next((value for pattern, value in table.items() if fnmatchcase(name, pattern)), None)


def select(file: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a file that are kept, limited and rounded."""
    kept = {}
    for name, values in arrays.items():
        place = f"{file}:{name}"
        if lookup(LEFT_OUT, place) is not None:
            continue
        part, step = lookup(LIMITED, place), lookup(ROUNDED, place)
        values = values if part is None else values[part]
        if step is not None and values.dtype.kind == "f":
            values = (np.round(values / step) * step).astype(values.dtype)
        if any(fnmatchcase(place, pattern) for pattern in GRADIENTS) and values.dtype.kind == "f":
            mantissa, exponent = np.frexp(values)
            values = np.ldexp(np.round(mantissa * 2**GRADIENT_BITS) / 2**GRADIENT_BITS, exponent)
        kept[name] = np.array(values, order="C")
    return kept


def drop_duplicates(
    file: str, arrays: dict[str, np.ndarray], seen: dict[bytes, str], same_as: dict[str, str]
) -> dict[str, np.ndarray]:
    """The arrays that no earlier file has; the places of the others go to `same_as`."""
    kept = {}
    for name, values in arrays.items():
        place = f"{file}:{name}"
        key = hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).digest()
        if values.nbytes > 2000 and seen.setdefault(key, place) != place:
            same_as[place] = seen[key]
        else:
            kept[name] = values
    return kept


def write_npz(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz whose every array is compressed the way that makes it smallest; the same bytes every time.

    Body files are deflated: their reader takes nothing else.
    """
    ways = (
        (zipfile.ZIP_DEFLATED,)
        if file.name.startswith("SMPLX_")
        else (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values, allow_pickle=False)
            best = min(ways, key=lambda way: packed(content, way))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), best, DEFLATE_LEVEL)


def packed(content: io.BytesIO, way: int) -> int:
    """Size in bytes after compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        archive.writestr("array", content.getvalue(), way, DEFLATE_LEVEL)
    return len(file.getvalue())


if __name__ == "__main__":
    main()
