"""Every reader of files in the project, with valid files to start from and the ways to break them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from common.body_model.body import BodyModel
from common.body_model.files import convert_licensed_files, read_body_data, read_uv, save_body_data
from common.body_model.pickles import read_model_pickle
from common.checkpoint import Snapshot, read_snapshot
from common.inference import load_person
from common.io.array import open_array, read_array
from common.io.image import check_image, image_size, read_mask, read_rgb
from common.io.json import read_json_object, read_numbers
from common.io.parameters import read_camera, read_smplx_params
from common.io.video import VideoWriter, read_video
from common.motion import load_motion
from common.perceptual import _load_heads, _load_trunk
from common.safe_snapshot import write_safe_snapshot
from common.skinning_field import _read_coordinates
from data.dataset import Subject
from data.frame import _read_valid, _read_validity
from tests.body_model.bodies import tiny_body_data, write_licensed_files
from tests.data.tiny_subject import HEIGHT, WIDTH
from tests.fuzz import formats, mutations
from tests.fuzz.folders import folder_changes, read_subject
from tests.fuzz.torch_files import odd_torch_file, saved
from tests.tiny_person import CONFIG, tiny_field, tiny_model

JOBLIB = Path(__file__).resolve().parents[1] / "body_model/files"
DEMO_BODY = Path(__file__).resolve().parents[2] / "data/demo_body/body.npz"

Read = Callable[[Path], Any]
Strategy = st.SearchStrategy[Any]


@dataclass(frozen=True)
class Loader:
    """Readers of one format. An input is bytes for the file `place`, or a list of changes to a folder."""

    name: str
    place: str  # of the file, in the folder that `prepare` has filled
    readers: Sequence[Read]
    inputs: Strategy
    large: bytes  # a valid file, if possible of over a megabyte, to measure what honest reading needs
    prepare: Callable[[Path], Any] | None = None
    seeds: Sequence[bytes] = ()  # small valid files, for tests/fuzz/atheris_run.py


def json_loader() -> Loader:
    """Parameters, cameras, boxes and offsets."""
    params = {name: torch.zeros(shape).tolist() for name, shape in _param_shapes().items()}
    camera = {"R": np.eye(3).tolist(), "t": [0.0, 0, 3], "focal": [30.0, 31], "princpt": [7.0, 10]}
    seeds = [params, camera, [3.5, 2, 5, 4], np.full((12, 3), 0.125).tolist()]
    texts = [json.dumps(seed).encode() for seed in seeds]
    readers = (
        read_smplx_params,
        lambda path: read_camera(path, HEIGHT, WIDTH),
        lambda path: read_numbers(path, (4,)),
        lambda path: read_numbers(path, (-1, 3)),
        lambda path: read_json_object(path, ("R",)),
    )
    large = json.dumps(np.random.default_rng(0).normal(size=(40_000, 3)).tolist()).encode()
    inputs = st.one_of(mutations.broken(texts), mutations.odd_json(seeds))
    return Loader("json", "0.json", readers, inputs, large, seeds=texts)


def _param_shapes() -> dict[str, tuple[int, ...]]:
    from common.io.parameters import SMPLX_SHAPES

    return SMPLX_SHAPES


def npy_loader() -> Loader:
    """Depths, normals, validity maps and coordinates of the skinning field."""
    arrays = [
        np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH),
        np.zeros((HEIGHT, WIDTH, 3), np.float32),
        np.ones((HEIGHT, WIDTH), bool),
        np.linspace(-1, 1, 12, dtype=np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ]
    size = (HEIGHT, WIDTH)
    readers = (
        open_array,
        lambda path: torch.from_numpy(read_array(path)),
        lambda path: _read_validity(path, size),
        lambda path: _read_valid(path, path.with_name("mask.npy"), size, 0),
        lambda path: _read_valid(path, path.with_name("mask.npy"), size, 3),
        _read_coordinates,
    )
    seeds = [_npy(array) for array in arrays]
    inputs = st.one_of(
        mutations.broken(seeds), mutations.odd_npy(seeds), mutations.odd_npy(seeds), mutations.objects_npy()
    )
    large = _npy(np.zeros((1024, 1024), np.float32))
    prepare = lambda folder: np.save(folder / "mask.npy", arrays[2])  # noqa: E731
    return Loader("npy", "0.npy", readers, inputs, large, prepare, seeds)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_loader(folder: Path) -> Loader:
    """Bodies in their runtime form."""
    file = folder / "seed.npz"
    save_body_data(tiny_body_data(), file)
    seed = file.read_bytes()
    bomb = mutations.written_zip(
        [("v_template.npy", _npy_zeros(2**28))], {"v_template.npy": zipfile.ZIP_DEFLATED}
    )
    inputs = st.one_of(mutations.broken([seed]), _odd_arrays(seed), _odd_arrays(seed), st.just(bomb))
    return Loader("npz (body)", "body.npz", (read_body_data,), inputs, DEMO_BODY.read_bytes(), seeds=[seed])


def licensed_npz_loader(folder: Path) -> Loader:
    """SMPL-X's model file among the other licensed files."""
    file = write_licensed_files(folder / "licensed", tiny_body_data()).path / "smplx/SMPLX_MALE.npz"
    seed = _without_objects(file)
    inputs = st.one_of(mutations.broken([seed]), _odd_arrays(seed), _odd_arrays(seed))
    reader = partial(_convert, levels_up=2)
    return Loader(
        "npz (SMPL-X)", "smplx/SMPLX_MALE.npz", (reader,), inputs, seed,
        lambda target: write_licensed_files(target, tiny_body_data()),
    )  # fmt: skip


def _convert(path: Path, levels_up: int) -> Any:
    return convert_licensed_files(path.parents[levels_up - 1], "male")


def _without_objects(file: Path) -> bytes:
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != "part2num"}
    kept = {name: array.astype(np.float16) if array.ndim == 3 else array for name, array in kept.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **kept)
    return buffer.getvalue()


def _npy_zeros(n_bytes: int) -> bytes:
    return _npy(np.zeros((n_bytes // 12, 3), np.float32))


def _odd_arrays(seed: bytes) -> Strategy:
    def odd(member: bytes) -> Strategy:
        return st.one_of(mutations.odd_npy([member]), mutations.broken([member]), mutations.objects_npy())

    return mutations.odd_zip([seed], odd)


def png_loader() -> Loader:
    """Images, masks and textures."""
    rng = np.random.default_rng(0)
    modes = ("RGB", "RGBA", "L", "P", "1", "LA")
    seeds = [_png(rng.integers(0, 256, (HEIGHT, WIDTH, 3)), mode) for mode in modes]
    readers = (image_size, check_image, read_rgb, read_mask, lambda path: read_rgb(path, (HEIGHT, WIDTH)))
    inputs = st.one_of(mutations.broken(seeds), formats.odd_png(seeds), formats.odd_png(seeds))
    return Loader("png", "0.png", readers, inputs, _png(rng.integers(0, 256, (1024, 1024, 3)), "RGB"))


def _png(pixels: np.ndarray, mode: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def obj_loader(folder: Path) -> Loader:
    """The UV map."""
    data = tiny_body_data()
    seed = (write_licensed_files(folder / "obj", data).path / "smplx/smplx_uv/smplx_uv.obj").read_text()
    inputs = st.one_of(mutations.broken([seed.encode()]), formats.odd_lines([seed], formats.ODD_WORDS))
    large = "vn 0.000 0.000 1.000\n" * 20_000 + seed
    reader = lambda path: read_uv(path, data.faces)  # noqa: E731
    return Loader("obj", "uv.obj", (reader,), inputs, large.encode(), seeds=[seed.encode()])


def pkl_loader(folder: Path) -> Loader:
    """FLAME's model file, alone and among the other licensed files."""
    file = write_licensed_files(folder / "pkl", tiny_body_data()).path / "flame/2019/generic_model.pkl"
    model = read_model_pickle(file)
    model["shapedirs"] = model["shapedirs"][:2]
    arrays = {
        "x": np.arange(4.0),
        "f": np.asfortranarray(np.eye(3)),
        "s": np.float32(1),
        "t": np.array(["a"]),
        "l": [1, None],
    }
    values = [model, arrays, {"left_hand": np.arange(3), "right_hand": np.arange(3)}]
    inputs = st.one_of(mutations.odd_pickle(values), mutations.broken([file.read_bytes()]))
    large = pickle.dumps({"shapedirs": np.zeros((2**16, 4, 4))})
    return Loader(
        "pkl", "flame/2019/generic_model.pkl", (read_model_pickle, partial(_convert, levels_up=3)), inputs,
        large, lambda target: write_licensed_files(target, tiny_body_data()), [pickle.dumps(arrays), file.read_bytes()],
    )  # fmt: skip


class _Person:
    """Loads snapshots into the tiny person."""

    def __init__(self) -> None:
        self.body = BodyModel(tiny_body_data(), 1)
        self.field = tiny_field(self.body)
        model = tiny_model()
        self.network = {key: value.clone() for key, value in model.state_dict().items()}

    def load(self, path: Path) -> Any:
        """The avatar and the poses of a snapshot."""
        snapshot = read_snapshot(path)
        return load_person(snapshot, path, self.body, self.field, CONFIG)


def pth_loader() -> Loader:
    """Snapshots, up to the avatar made of them."""
    person = _Person()
    small = {"persona.mean_offset": torch.zeros(3, 3), "persona.triplane": torch.zeros(3, 2, 2, 2)}
    contents = [{"epoch": 3, "network": network, "optimizer": None} for network in (person.network, small)]
    run = {"format": 1, "position": {"epoch": 1}, "random": [1, 2, b"abc"]}
    whole = {
        **contents[0],
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []},
        "run": run,
    }
    seeds = [saved(whole), saved(contents[1])]
    legacy = [saved(whole, False), saved(contents[1], False)]
    inputs = odd_torch_file(seeds, legacy, [contents[1], contents[0]])
    large = saved({**contents[0], "optimizer": {"x": torch.zeros(2**20)}})
    return Loader("pth (snapshot)", "snapshot_3.pth", (person.load,), inputs, large)


def weights_loader() -> Loader:
    """Weights of the perceptual loss."""
    heads = nn.ParameterList([nn.Parameter(torch.zeros(n)) for n in (4, 6)])
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3))
    state = {f"lin{i}.model.1.weight": torch.rand(1, len(head), 1, 1) for i, head in enumerate(heads)}
    state |= {f"features.{name}": value.detach() for name, value in trunk.named_parameters()}
    readers = (lambda path: _load_heads(heads, path), lambda path: _load_trunk(trunk, path))
    inputs = odd_torch_file([saved(state)], [saved(state, False)], [state])
    large = saved({**state, "classifier": torch.zeros(2**20)})
    return Loader("pth (LPIPS)", "vgg.pth", readers, inputs, large)


def safetensors_loader(folder: Path) -> Loader:
    """Snapshots without pickle."""
    person = _Person()
    small = {"persona.mean_offset": torch.zeros(3, 3), "persona.seg": torch.ones(2, 3)}
    seeds = []
    for i, network in enumerate((person.network, small)):
        write_safe_snapshot(folder / f"{i}.safetensors", Snapshot(3, network, None))
        seeds.append((folder / f"{i}.safetensors").read_bytes())
    inputs = st.one_of(mutations.broken(seeds), *[formats.odd_safetensors(seeds)] * 2)
    return Loader("safetensors", "snapshot_3.safetensors", (person.load,), inputs, seeds[0])


def mp4_loader(folder: Path) -> Loader:
    """Videos."""
    sizes = {"seed": (48, 64, 4), "large": (512, 512, 12)}
    for name, (height, width, n_frames) in sizes.items():
        rng = np.random.default_rng(0)
        with VideoWriter(folder / f"{name}.mp4", 30) as video:
            for _ in range(n_frames):
                video.write(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    seed, large = ((folder / f"{name}.mp4").read_bytes() for name in sizes)
    inputs = st.one_of(mutations.broken([seed]), formats.odd_mp4([seed]), formats.odd_mp4([seed]))
    return Loader("mp4", "motion.mp4", (lambda path: sum(1 for _ in read_video(path)),), inputs, large)


def list_loader() -> Loader:
    """Lists of frames."""
    seeds = ["0\n2\n10\n", "1", "7 8\n9"]
    texts = [seed.encode() for seed in seeds]
    inputs = st.one_of(
        mutations.broken(texts),
        formats.odd_lines(seeds, formats.ODD_WORDS),
        st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )
    large = "\n".join(map(str, range(200_000))).encode()
    reader = lambda path: Subject(path.parents[1]).frames("generated_0")  # noqa: E731
    return Loader("frame list", "generated_0/frame_idx_list.txt", (reader,), inputs, large, seeds=texts)


def folder_loader() -> Loader:
    """Whole subjects."""
    return Loader("subject folder", "", (read_subject,), folder_changes(), b"")


def motion_loader(suffix: str) -> Loader:
    """Motions in one file: AMASS, SMPL-X parameters stacked and as a list of frames, data sets, trackers."""
    rng = np.random.default_rng(0)
    amass = {
        "poses": rng.normal(size=(3, 165)) * 0.1,
        "trans": np.zeros((3, 3)),
        "mocap_framerate": np.array(30.0),
    }
    stacked = {"global_orient": np.zeros((3, 3)), "body_pose": np.zeros((3, 63)), "transl": np.ones((3, 3))}
    stacked |= {
        "left_hand_pose": np.zeros((3, 45)),
        "focal": np.full((3, 2), 500.0),
        "princpt": np.full((3, 2), 8.0),
    }
    world = {"smpl_params_global": stacked, "smpl_params_incam": stacked, "K_fullimg": np.eye(3)}
    single = {name: value[0] for name, value in stacked.items()}
    contents: list[Any] = [amass, stacked, {"0": single, "1": single}, world, *_tracked_motions()]
    lists: list[Any] = [json.loads(json.dumps(content, default=np.ndarray.tolist)) for content in contents]
    if suffix == "json":
        texts = [json.dumps(content).encode() for content in lists]
        inputs, large = st.one_of(mutations.broken(texts), mutations.odd_json(lists)), texts[0]
    elif suffix == "npz":
        seeds = [_npz(content) for content in contents[:2]]
        inputs = st.one_of(mutations.broken(seeds), *[_odd_arrays(seed) for seed in seeds])
        large = _npz({"poses": np.zeros((2000, 165)), "trans": np.zeros((2000, 3))})
    elif suffix == "pkl":
        joblib = [path.read_bytes() for path in sorted(JOBLIB.glob("joblib*.pkl"))]
        inputs = st.one_of(
            mutations.odd_pickle(contents), mutations.odd_pickle(lists), mutations.broken(joblib)
        )
        large = pickle.dumps({"poses": np.zeros((2000, 165)), "trans": np.zeros((2000, 3))})
    else:
        tensors = [
            {name: torch.from_numpy(value) for name, value in content.items()} for content in contents[:2]
        ]
        inputs = odd_torch_file(
            [*map(saved, tensors)], [saved(content, False) for content in tensors], tensors
        )
        large = saved({"poses": torch.zeros(2000, 165), "trans": torch.zeros(2000, 3)})
    return Loader(f"motion .{suffix}", f"walk.{suffix}", (load_motion,), inputs, large)


def _tracked_motions() -> list[Any]:
    """Motions as AIST++, WHAM, PHALP and EasyMocap write them."""
    poses, places = np.zeros((3, 72)), np.ones((3, 3))
    aist = {"smpl_poses": poses, "smpl_trans": places, "smpl_scaling": np.array([90.0])}
    wham = {"0": {"pose": poses, "trans": places, "pose_world": poses, "trans_world": places}}
    body = {"global_orient": np.eye(3)[None], "body_pose": np.tile(np.eye(3), (23, 1, 1))}
    frame = {"tid": [1], "smpl": [body], "camera": [places[0]]}
    phalp = {f"{i}.jpg": {"time": i, **frame} for i in range(2)}
    easymocap = {"annots": [{"id": 0, "Rh": places[:1], "Th": places[:1], "poses": poses[:1]}]}
    return [aist, wham, phalp, easymocap]


def _npz(content: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **content)
    return buffer.getvalue()


MAKERS: dict[str, Callable[[Path], Loader]] = {
    "json": lambda _: json_loader(),
    "npy": lambda _: npy_loader(),
    "npz (body)": npz_loader,
    "npz (SMPL-X)": licensed_npz_loader,
    "png": lambda _: png_loader(),
    "obj": obj_loader,
    "pkl": pkl_loader,
    "pth (snapshot)": lambda _: pth_loader(),
    "pth (LPIPS)": lambda _: weights_loader(),
    "safetensors": safetensors_loader,
    "mp4": mp4_loader,
    **{
        f"motion .{suffix}": lambda _, suffix=suffix: motion_loader(suffix)
        for suffix in ("npz", "json", "pkl", "pt")
    },
    "frame list": lambda _: list_loader(),
    "subject folder": lambda _: folder_loader(),
}
