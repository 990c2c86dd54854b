"""What broken and hostile files once did to this program, one test each, and what it says to them now."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.body_model.files import convert_licensed_files, read_body_data, read_uv, save_body_data
from common.body_model.pickles import read_model_pickle
from common.checkpoint import read_snapshot
from common.errors import UserError
from common.evaluation import find_ground_truth
from common.io import image
from common.io.array import open_array, read_array
from common.io.image import read_rgb
from common.io.json import numbers, read_numbers, write_json
from common.io.npz import read_npz
from common.io.torch_file import read_torch_file
from common.io.video import VideoWriter, read_video
from common.motion import load_motion
from data.dataset import Subject
from tests.body_model.bodies import tiny_body_data, write_licensed_files
from tests.data.tiny_subject import PATCH
from tests.fuzz.folders import KEPT, OUTSIDE, write_folders
from tests.fuzz.mutations import written_zip
from tests.fuzz.payloads import Call, exhausting_pickles, laughs, npy_with_pickle
from tests.fuzz.torch_files import saved
from tests.fuzz.worker import Measured

MIB = 2**20


@pytest.fixture
def subject(tmp_path) -> Path:
    return write_folders(tmp_path)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refusal(read, path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return str(error.value)


def test_an_eps_named_png_started_ghostscript(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    path = tmp_path / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 14 20\n%%EndComments\n")
    assert "0.png is truncated or not an image" in refusal(read_rgb, path)


def test_an_image_of_more_pixels_than_its_bytes_can_hold_took_their_memory(tmp_path):
    path = tmp_path / "0.png"
    Image.new("RGB", (8000, 8000)).resize((8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (8000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    path.write_bytes(content)
    with Measured() as measured:
        assert "cannot hold 8000 x 8000 pixels" in refusal(read_rgb, path)
    assert max(measured.peak, measured.reserved) < 32 * MIB


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after the pixels"])
def test_odd_animations_printed_warnings(tmp_path, place):
    path = tmp_path / "0.png"
    Image.new("RGB", (4, 4)).save(path)
    chunk = b"acTL" + bytes(8)
    chunk = (8).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    content = path.read_bytes()
    path.write_bytes(content[:place] + chunk + content[place:])
    with warnings.catch_warnings(record=True) as warned:
        reloaded = importlib.reload(image)  # pytest has taken back the filters that importing it has set
        assert reloaded.read_rgb(path).shape == (3, 4, 4)
    assert not warned


def test_odd_palettes_printed_warnings(tmp_path, recwarn):
    path = tmp_path / "0.png"
    Image.new("P", (4, 4)).save(path, transparency=b"\0\1")
    assert read_rgb(path).shape == (3, 4, 4)
    assert not recwarn.list


def test_big_endian_and_long_arrays_ended_in_a_traceback(tmp_path, subject):
    for dtype in (">f4", ">f8"):
        np.save(subject / f"generated_0/depths/{KEPT['generated_0']}.npy", np.ones((20, 14), dtype))
        assert Subject(subject, PATCH).load("generated_0", KEPT["generated_0"]).depth.max() == 1
    np.save(tmp_path / "long.npy", np.ones(3, np.longdouble))
    assert "expected numbers" in refusal(read_array, tmp_path / "long.npy")


@pytest.mark.parametrize("shape", ["(2147483648, 2147483648)", "(-2, -3)", "(99999999999999999999,)"])
def test_npy_shapes_overflowed(tmp_path, shape, recwarn):
    path = tmp_path / "0.npy"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(24))
    assert "0.npy is truncated or not a plain" in refusal(open_array, path)
    assert not recwarn.list


def test_a_cut_npy_header_in_an_npz_ended_in_a_traceback(tmp_path):
    path = tmp_path / "body.npz"
    whole = npy(np.zeros((3, 3), np.float32))
    for content in (whole[:60], whole.replace(b"}", b" "), b"no array", npy_with_pickle(b"."), whole[:-1]):
        path.write_bytes(written_zip([("v_template.npy", content)], {}))
        assert "body.npz is not a readable .npz file" in refusal(lambda p: read_npz(p, ("v_template",)), path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_unusual_compression_in_an_npz_ended_in_a_traceback(tmp_path, method):
    path = tmp_path / "body.npz"
    real = method if method != 99 else zipfile.ZIP_STORED
    content = written_zip([("x.npy", npy(np.zeros(3)))], {"x.npy": real})
    if method == 99:
        content = content.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x00c\x00"
        )
    path.write_bytes(content)
    assert "an unusual compression" in refusal(lambda p: read_npz(p, ("x",)), path)


def test_a_zip_bomb_in_an_npz_took_its_memory(tmp_path):
    path = tmp_path / "body.npz"
    save_body_data(tiny_body_data(), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["pose_dirs.npy"] = npy(np.zeros((2**17, 3, 100), np.float32))  # 150 MiB
    path.write_bytes(written_zip(list(entries.items()), dict.fromkeys(entries, zipfile.ZIP_DEFLATED)))
    assert path.stat().st_size < MIB
    del entries
    with Measured() as measured:
        assert "more than any such file needs" in refusal(read_body_data, path)
    assert max(measured.peak, measured.reserved) < 32 * MIB


def test_a_false_size_in_an_npz_took_its_memory(tmp_path):
    path = tmp_path / "x.npz"
    header = npy(np.zeros(0)).replace(b"(0,), }       ", b"(99999999,), }")
    assert b"99999999" in header
    path.write_bytes(written_zip([("x.npy", header)], {}))
    with Measured() as measured:
        assert "its header says" in refusal(lambda p: read_npz(p, ("x",)), path)
    assert max(measured.peak, measured.reserved) < 32 * MIB


def test_ids_of_a_body_that_are_floats_ended_in_a_traceback_later(tmp_path):
    path = tmp_path / "body.npz"
    save_body_data(tiny_body_data(), path)
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    for name, array in (("faces", content["faces"].astype(np.float32)), ("v_template", np.float32(1))):
        np.savez(path, allow_pickle=False, **{**content, name: array})
        assert name in refusal(read_body_data, path)


def test_text_beside_numbers_took_gigabytes():
    value = ["x" * 10**6, *[""] * 1000]  # 1 MiB; as a numpy array 4 GiB
    with Measured() as measured, pytest.raises(UserError, match=r"0\.json: key is not a list of numbers"):
        numbers(value, (3,), "0.json: key")
    assert max(measured.peak, measured.reserved) < 32 * MIB


@pytest.mark.parametrize("content", exhausting_pickles())
def test_small_pickles_took_minutes_or_gigabytes(tmp_path, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with Measured() as measured:
        try:
            read_model_pickle(path)
        except UserError as error:
            assert "model.pkl" in str(error)
    assert measured.seconds < 2
    assert max(measured.peak, measured.reserved) < 64 * MIB


def test_lists_without_end_in_licensed_files_took_for_ever(tmp_path):
    write_licensed_files(tmp_path, tiny_body_data())
    for name, key in (
        ("flame/2019/generic_model.pkl", "weights"),
        ("smplx/MANO_SMPLX_vertex_ids.pkl", "left_hand"),
    ):
        path = tmp_path / name
        before = path.read_bytes()
        model = {**read_model_pickle(path), key: laughs(25)}
        path.write_bytes(pickle.dumps(model))
        assert path.name in refusal(lambda p: convert_licensed_files(tmp_path, "male"), path)
        path.write_bytes(before)


def test_a_sparse_matrix_of_nothing_took_gigabytes(tmp_path):
    import scipy.sparse

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"J": scipy.sparse.csc_matrix((2**28, 1))}))
    with Measured() as measured:
        assert "arrays far larger than the file" in refusal(read_model_pickle, path)
    assert max(measured.peak, measured.reserved) < 32 * MIB


@pytest.mark.parametrize(
    "entry", ["[]", "{}", '{"":0}', "[0]"], ids=["lists", "objects", "full objects", "lists of one"]
)
def test_small_lists_in_a_json_took_twenty_times_its_size(tmp_path, entry):
    path = tmp_path / "0.json"
    path.write_text("[" + f"{entry}," * (8 * MIB // len(entry)) + f"{entry}]")
    with Measured() as measured:
        assert "too many lists and objects" in refusal(lambda p: read_numbers(p, (-1, 3)), path)
    assert max(measured.peak, measured.reserved) < 64 * MIB and measured.seconds < 2


def test_bytes_in_an_npz_took_eight_times_the_memory_that_was_checked(tmp_path):
    path = tmp_path / "motion.npz"
    np.savez_compressed(
        path, poses=np.zeros((190_000, 165), np.uint8), trans=np.zeros((190_000, 3), np.uint8)
    )
    with Measured() as measured:
        assert "more than any such file needs" in refusal(load_motion, path)
    assert max(measured.peak, measured.reserved) < 64 * MIB


def test_a_second_table_of_contents_in_an_npz_hid_its_size(tmp_path):
    path = tmp_path / "x.npz"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(70_000):  # over 65,535 entries make it zip64
            archive.writestr(str(i), b"")
    content = bytearray(buffer.getvalue())
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    with Measured() as measured:
        assert "a zip64 archive" in refusal(lambda p: read_npz(p, ("x",)), path)
    assert max(measured.peak, measured.reserved) < 16 * MIB


def test_texts_in_a_png_inflated_to_64_mib(tmp_path):
    path = tmp_path / "0.png"
    Image.new("RGB", (4, 4)).save(path)
    text = zlib.compress(b"a" * (MIB - 16), 9)
    chunks = b""
    for i in range(60):
        chunk = b"zTXt" + f"key{i}".encode() + b"\0\0" + text
        chunks += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunks + content[33:])
    with Measured() as measured:
        assert "text chunks" in refusal(read_rgb, path)
    assert max(measured.peak, measured.reserved) < 24 * MIB


def test_a_png_reserved_what_the_length_of_a_part_says(tmp_path):
    path = tmp_path / "0.png"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT") - 4
    content[at : at + 4] = (700 * MIB).to_bytes(4, "big")
    path.write_bytes(content)
    with Measured() as measured:
        assert "is said to have 734003200 bytes" in refusal(read_rgb, path)
    assert max(measured.peak, measured.reserved) < 16 * MIB


def test_a_jpeg_of_many_scans_took_minutes(tmp_path):
    path = tmp_path / "0.png"
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    path.write_bytes(content)
    assert read_rgb(path).shape == (3, 2000, 2000)
    scans, end = content.index(b"\xff\xda"), content.rindex(b"\xff\xd9")
    path.write_bytes(content[:end] + content[scans:end] * 400 + content[end:])
    with Measured() as measured:
        assert "scans" in refusal(read_rgb, path)
    assert measured.seconds < 1


SMALL_THINGS = {
    "lists": b"]" * 500_000,
    "dicts": b"}" * 500_000,
    "tuples": b"K\1\x85" * 300_000,
    "numbers": b"K\1" * 900_000,
    "marks": b"(" * 500_000 + b"l" * 500_000,
}


@pytest.mark.parametrize("name", SMALL_THINGS)
@pytest.mark.parametrize("kind", ["pkl", "pth"])
def test_millions_of_small_things_in_a_pickle_took_half_a_minute_and_a_gigabyte(tmp_path, name, kind):
    pickled = b"\x80\x02](" + SMALL_THINGS[name] + b"e."
    path = tmp_path / f"snapshot_3.{kind}"
    if kind == "pth":
        entries = [("a/data.pkl", pickled), ("a/version", b"3\n"), ("a/byteorder", b"little")]
        path.write_bytes(written_zip(entries, {}))
    else:
        path.write_bytes(pickled)
    with Measured() as measured:
        said = refusal(read_snapshot if kind == "pth" else read_model_pickle, path)
    assert "too many small things" in said
    assert max(measured.peak, measured.reserved) < 64 * MIB and measured.seconds < 5


def test_arrays_that_share_their_bytes_in_a_pickle_took_a_copy_each(tmp_path):
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"
        b"(K\1J\0\0\2\0\x85cnumpy\ndtype\nX\2\0\0\0f8K\0K\1\x87R\x89h\0tb"
    )
    shared = b"B" + MIB.to_bytes(4, "little") + bytes(MIB) + b"q\0"
    path = tmp_path / "model.pkl"
    for n_arrays, is_refused in ((4, False), (400, True)):
        path.write_bytes(b"\x80\3}(K\0" + shared + b"K\1](" + array * n_arrays + b"eu.")
        with Measured() as measured:
            if is_refused:
                assert "arrays far larger than the file" in refusal(read_model_pickle, path)
            else:
                assert len(read_model_pickle(path)["1"]) == n_arrays
        assert max(measured.peak, measured.reserved) < 64 * MIB


SNAPSHOT = {"epoch": 3, "network": {"x": torch.zeros(2, 3)}, "optimizer": None}
ODD_SNAPSHOTS = {
    "names that are no text": {**SNAPSHOT, "network": {1: torch.zeros(2)}},
    "a tensor larger than its memory": {**SNAPSHOT, "network": {"x": torch.zeros(1).expand(10**9)}},
    "a tensor without memory": {**SNAPSHOT, "network": {"x": torch.empty(2**40, device="meta")}},
    "gigabytes made by a call": {**SNAPSHOT, "network": {"x": Call(bytearray, 2**33)}},
    "gigabytes made by torch": {**SNAPSHOT, "network": {"x": Call(torch.Tensor, 2**34)}},
    "lists without end": {**SNAPSHOT, "optimizer": laughs(25)},
    "an epoch without end": {**SNAPSHOT, "epoch": 10**30},
    "code": {**SNAPSHOT, "optimizer": Call(os.system, "touch code_was_run")},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ODD_SNAPSHOTS)
def test_odd_snapshots_ended_in_tracebacks_or_took_memory(tmp_path, name, is_zip, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "snapshot_3.pth"
    path.write_bytes(saved(ODD_SNAPSHOTS[name], is_zip))
    with Measured() as measured:
        message = refusal(read_snapshot, path)
    assert "snapshot_3.pth" in message and message.isprintable()
    assert measured.seconds < 2 and max(measured.peak, measured.reserved) < 64 * MIB
    assert not recwarn.list and not (tmp_path / "code_was_run").exists()


def test_a_compressed_snapshot_could_inflate_to_any_size(tmp_path):
    path = tmp_path / "snapshot_3.pth"
    content = saved({**SNAPSHOT, "network": {"x": torch.zeros(2**24)}})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(written_zip(list(entries.items()), dict.fromkeys(entries, zipfile.ZIP_DEFLATED)))
    del content, entries
    with Measured() as measured:
        assert "compressed" in refusal(read_snapshot, path)
    assert max(measured.peak, measured.reserved) < 32 * MIB


def test_a_legacy_torch_file_took_the_memory_it_declares(tmp_path):
    path = tmp_path / "vgg.pth"
    content = saved({"x": torch.zeros(4)}, is_zip=False)
    path.write_bytes(content.replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))
    assert path.read_bytes() != content
    with Measured() as measured:
        assert "another size than it declares" in refusal(
            lambda p: read_torch_file(p, "weights", "get it"), path
        )
    assert max(measured.peak, measured.reserved) < 32 * MIB


@pytest.mark.parametrize("epoch", ["9" * 5000, "\u0663", "-1", ""])
def test_odd_epochs_of_safetensors_ended_in_a_traceback(tmp_path, epoch):
    from safetensors.torch import save_file

    path = tmp_path / "snapshot_3.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata={"format": "persona-avatar-1", "epoch": epoch})
    assert "is not an avatar snapshot" in refusal(read_snapshot, path)


def test_headers_of_safetensors_took_minutes(tmp_path):
    path = tmp_path / "snapshot_3.safetensors"
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): entry for i in range(100_000)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with Measured() as measured:
        assert "a header of" in refusal(read_snapshot, path)
    assert measured.seconds < 1 and max(measured.peak, measured.reserved) < 16 * MIB


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("f 1/1 2/2 3/3\n" * 300_000, "far larger"),
        ("f 1/1 2/2 3/3\n" * 3000, "more faces or coordinates"),
        ("vt 0 0\n" * 30_000, "more faces or coordinates"),
        ("vt nan 0\n", "not finite"),
        ("vt 1e99 0\n", "not finite"),
    ],
)
def test_long_uv_maps_took_fifty_times_their_size_and_odd_ones_were_taken(tmp_path, more, said):
    data = tiny_body_data()
    path = write_licensed_files(tmp_path, data).path / "smplx/smplx_uv/smplx_uv.obj"
    path.write_text(path.read_text() + more)
    with Measured() as measured:
        assert said in refusal(lambda p: read_uv(p, data.faces), path)
    assert measured.seconds < 2 and measured.peak < 32 * MIB


@pytest.mark.parametrize("number", ["0", "-1", "99999"])
def test_faces_of_a_uv_map_could_name_coordinates_that_it_does_not_have(tmp_path, number):
    data = tiny_body_data()
    path = write_licensed_files(tmp_path, data).path / "smplx/smplx_uv/smplx_uv.obj"
    path.write_text(re.sub(r"(?m)^f (\d+)/\d+", rf"f \1/{number}", path.read_text(), count=1))
    assert "coordinates that it does not have" in refusal(lambda p: read_uv(p, data.faces), path)


def test_names_too_long_for_the_system_ended_in_a_traceback(tmp_path):
    path = tmp_path / ("x" * 300 + ".npz")
    assert "File name too long" in refusal(load_motion, path)


def test_messages_carried_control_characters_and_lines_of_the_file(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"c\x1b[2J\x1b[31m" + b"x" * 5000 + b"\nsystem\n.")
    message = refusal(read_model_pickle, path)
    assert message.isprintable() and len(message) < 1500 and "official site" in message
    assert str(UserError("a\nb\x1b[2J\u202e\udcff")) == r"a b\x1b[2J\u202e\udcff"


PIPES = (
    "captured/images/0.png",
    "captured/depths/0.npy",
    "captured/cam_params/0.json",
    "generated_0/frame_idx_list.txt",
)


def test_pipes_in_a_subject_were_waited_for(subject):
    for path in (
        "captured/images/0.png",
        "captured/depths/0.npy",
        "captured/cam_params/0.json",
        "generated_0/frame_idx_list.txt",
    ):
        (subject / path).unlink()
        os.mkfifo(subject / path)
    problems = Subject(subject, PATCH).problems()
    assert sum("a pipe" in problem for problem in problems) == 4


def test_links_out_of_the_subject_were_followed(subject):
    outside = subject.parent / OUTSIDE
    targets = {
        "captured/images/0.png": True,
        "captured/depths/0.npy": False,
        "generated_0/frame_idx_list.txt": True,
        "captured/smplx_optimized/shape_param.json": False,
        "captured/smplx_optimized/face_offset.json": True,
        "generated_0/smplx_optimized/smplx_seg_inpaint.png": False,
    }
    for path, is_relative in targets.items():
        (subject / path).unlink()
        target = outside / path
        (subject / path).symlink_to(
            os.path.relpath(target, (subject / path).parent) if is_relative else target
        )
    shutil.rmtree(subject / "test")
    (subject / "test").symlink_to(outside / "test")
    problems = Subject(subject, PATCH).problems((*KEPT,))
    told = [
        path for path in targets if "face_offset" not in path
    ]  # of several parts of the identity, the first
    for path in (*told, "test"):
        assert any(str(subject / path) in problem and "leads out of" in problem for problem in problems), path
    for read in (lambda p: Subject(p).identity, lambda p: Subject(p).textures()):
        assert "leads out of" in refusal(read, subject)
    assert "leads out of" in refusal(find_ground_truth, subject)


@pytest.mark.parametrize("name", ["model_dump", "model_dump/S"])
def test_links_out_of_the_output_folder_were_written_through(tmp_path, name):
    from main.config import Paths
    from main.setup import SubjectArgs, model_folder

    output = tmp_path / "output"
    (output / name).parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (output / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of"):
        model_folder(SubjectArgs("S", paths=Paths(output=output)), False)


def test_a_link_under_the_temporary_name_was_written_through(tmp_path):
    (tmp_path / f".a.{os.getpid()}.tmp.json").symlink_to(tmp_path / "elsewhere.json")
    write_json(tmp_path / "a.json", [1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"] and not (
        tmp_path / "a.json"
    ).is_symlink()


def test_a_frame_of_a_million_pixels_a_side_ended_evaluation_without_memory(subject):
    (subject / "test/images/img_shape_orig.json").write_text("[1000000, 1000000]")
    assert "at most" in refusal(find_ground_truth, subject)


def test_a_face_box_of_no_size_made_an_infinite_camera(subject):
    (subject / "captured/face_patches/bbox/0.json").write_text("[3, 2, 1e-38, 1e-38]")
    assert "smaller than a pixel" in refusal(lambda _: Subject(subject, PATCH).load("captured", 0), subject)


@pytest.mark.parametrize(
    "content", [b"", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"\0\0\0\x18ftypisom", b"ffconcat version 1.0\n"]
)
def test_broken_videos_ended_in_a_traceback_or_read_other_files(tmp_path, content):
    path = tmp_path / "motion.mp4"
    path.write_bytes(content)
    assert "motion.mp4" in refusal(lambda p: list(read_video(p)), path)


def test_a_video_without_decoder_ended_in_a_traceback(tmp_path):
    path = tmp_path / "motion.mp4"
    frames = [np.full((32, 32, 3), i * 60, np.uint8) for i in range(3)]
    with VideoWriter(path, 30) as video:
        for frame in frames:
            video.write(frame)
    for read, frame in zip(read_video(path), frames, strict=True):
        assert np.abs(read.astype(int) - frame).max() < 6
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xxxx"))
    assert "motion.mp4 is truncated or not" in refusal(lambda p: list(read_video(p)), path)


def test_motions_of_odd_content_ended_in_tracebacks(tmp_path):
    contents = {
        "single": {"poses": 3.0},
        "text": {"poses": ["x" * 10**6, *[""] * 1000]},
        "no end": {"poses": laughs(25)},
        "no entries": {"smpl_params_global": 1, "smpl_params_incam": 2},
        "size": {
            "global_orient": [0, 0, 0], "body_pose": [0] * 63, "transl": [0, 0, 3], "focal": [9, 9],
            "princpt": [1e9, 1e9]
        },
    }  # fmt: skip
    for name, content in contents.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(pickle.dumps(content))
        with Measured() as measured:
            assert path.name in refusal(load_motion, path)
        assert measured.seconds < 2 and measured.peak < 64 * MIB
