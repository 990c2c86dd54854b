"""Which terms a frame has, and that every weight of the config acts where SPEC 12 says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common import renders
from common.objective import Objective, make_smoothness, total
from common.trainer import Losses
from data.dataset import Frame
from main.config import LossConfig
from tests.tiny_person import tiny_model, tiny_objective

ALWAYS = {
    *("img", "img_refined", "geo", "geo_refined", "mask_eye"),
    *("lap_mean", "lap_mean_refined", "lap_scale", "lap_rgb"),
    *("hand_rgb_tv_reg", "hand_rgb_reg", "mouth_in_rgb_reg"),
}
PATCH = {"patch_face", "patch_face_boundary", "patch_mask_face", "patch_face_geo"}
TERMS = {
    "captured": ALWAYS | PATCH | {"img_albedo", "img_boundary", "img_boundary_refined", "face_geo"},
    "generated": ALWAYS | {"img_aux_refined", "mask_hand"},
    "fitting": {"img", "img_refined", "geo", "geo_refined"},
}
IMAGE_TERMS = {
    *("img", "img_albedo", "img_refined", "img_aux_refined", "img_boundary", "img_boundary_refined"),
    *("patch_face", "patch_face_boundary"),
}
# Config value -> the terms that are proportional to it, on any frame.
PROPORTIONAL = {
    "image_refined": {"img_refined"},
    "hand_mask": {"mask_hand"},
    "patch": PATCH,
    "lap_mean": {"lap_mean"},
    "lap_scale": {"lap_scale"},
    "lap_rgb": {"lap_rgb"},
    "hand_rgb_tv": {"hand_rgb_tv_reg"},
    "geometry_weight": {"lap_mean", "lap_mean_refined"},
}
# Config value -> the terms that it changes somehow: on photos, on generated frames.
CHANGED = {
    "boundary": ({"img", "img_albedo", "img_refined", "patch_face"}, set()),
    "captured_geometry": ({"geo", "geo_refined"}, set()),
    "depth": ({"geo", "geo_refined"}, {"geo", "geo_refined"}),
    "geometry_weight_face": ({"lap_mean"}, {"lap_mean"}),
    "geometry_weight_hand": ({"lap_mean"}, {"lap_mean"}),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def frames(small_subject) -> dict[str, Frame]:
    return {
        "captured": small_subject.load("captured", 0),
        "generated": small_subject.load("generated_0", 2),
        "fitting": small_subject.load("test", 3),
    }


def compute(objective: Objective, frames: dict[str, Frame], kind: str) -> Losses:
    with torch.no_grad():
        return (objective.fitting if kind == "fitting" else objective.training)(frames[kind])


@pytest.fixture(scope="module")
def published(model, frames) -> dict[str, Losses]:
    objective = tiny_objective(model)
    return {kind: compute(objective, frames, kind) for kind in TERMS}


@pytest.mark.parametrize("kind", TERMS)
def test_a_frame_has_exactly_its_terms(published, kind):
    assert published[kind].keys() == TERMS[kind]
    for name, value in published[kind].items():
        assert value.shape == () and torch.isfinite(value), name
    zero = {name for name, value in published[kind].items() if value == 0}
    assert zero <= {"mouth_in_rgb_reg"}  # this body has no inside of the mouth


def test_the_total_is_the_plain_sum(published):
    for terms in published.values():
        assert float(total(terms)) == pytest.approx(sum(float(value) for value in terms.values()), rel=1e-6)


@pytest.mark.parametrize("name", PROPORTIONAL)
@pytest.mark.parametrize("kind", ["captured", "generated"])
def test_a_weight_scales_its_terms_and_no_other(model, frames, published, kind, name):
    config = LossConfig()
    doubled = tiny_objective(model, replace(config, **{name: 2 * getattr(config, name)}))
    for term, value in compute(doubled, frames, kind).items():
        factor = 2 if term in PROPORTIONAL[name] else 1
        assert float(value) == pytest.approx(factor * float(published[kind][term]), rel=1e-5), term


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("column", [0, 1])
def test_a_factor_changes_its_terms_and_no_other(model, frames, published, name, column):
    kind = ("captured", "generated")[column]
    config = LossConfig()
    changed = tiny_objective(model, replace(config, **{name: 3 * getattr(config, name)}))
    terms = compute(changed, frames, kind)
    different = {term for term in terms if abs(terms[term] / published[kind][term] - 1) > 1e-6}
    assert different == CHANGED[name][column]


def test_l1_and_ssim_are_all_of_an_image_term_without_lpips(model, frames, published):
    config = replace(LossConfig(), l1=0.0, ssim=0.0)
    for kind in TERMS:
        for term, value in compute(tiny_objective(model, config), frames, kind).items():
            expected = 0.0 if term in IMAGE_TERMS else float(published[kind][term])
            assert float(value) == pytest.approx(expected, rel=1e-5), term


def test_lpips_is_added_to_every_image_term_with_its_weight(model, frames, published):
    """A perceptual distance of 1 adds the weight times the mean weight of the term's pixels."""
    base = tiny_objective(model)
    config = replace(LossConfig(), lpips=0.5)
    objective = Objective(model, config, base.initial_rgb, lambda x, y: torch.ones(len(x)))
    terms = compute(objective, frames, "generated")
    factor = {"img": 1.0, "img_refined": config.image_refined, "img_aux_refined": 1.0}
    for term, value in terms.items():
        expected = published["generated"][term] + 0.5 * factor.get(term, 0.0)
        assert float(value) == pytest.approx(float(expected), rel=1e-5), term


@pytest.mark.parametrize("kind", TERMS)
def test_images_that_are_compared_differ_only_where_an_avatar_is(model, frames, kind):
    """So LPIPS need not look at the rest of them."""
    pairs = []

    def record(x, y):
        pairs.append((x, y))
        return torch.zeros(len(x))

    compute(Objective(model, LossConfig(), tiny_objective(model).initial_rgb, record), frames, kind)
    assert sum(len(x) for x, _ in pairs) == len(TERMS[kind] & IMAGE_TERMS)
    frame = frames[kind]
    posed = model.persona(model.smplx_param_dict.pose(frame.split, frame.index), frame.camera)
    for x, y in pairs:
        is_image = x.shape[2:] == frame.image.shape[1:]
        camera = frame.camera if is_image else frame.face_camera
        of_avatars = renders.render_fit(posed, model.persona.body, camera)
        is_avatar = ((of_avatars.base.mask > 0) | (of_avatars.refined.mask > 0))[0]
        differs = (x != y).flatten(0, 1).any(0)
        assert differs.any() and not (differs & ~is_avatar).any()
        assert not is_image or not is_avatar.all()


def test_boundary_settings_of_the_config_are_used(model, frames, published):
    """With an unreachable threshold there is no boundary: photo images count fully, boundary terms vanish."""
    terms = compute(tiny_objective(model, LossConfig(boundary_threshold=1e9)), frames, "captured")
    assert terms["img_boundary"] == terms["img_boundary_refined"] == terms["patch_face_boundary"] == 0
    assert terms["img"] > published["captured"]["img"]
    no_weight = compute(tiny_objective(model, LossConfig(boundary=1.0)), frames, "captured")
    for term in ("img", "img_albedo", "img_refined", "patch_face"):
        assert float(terms[term]) == pytest.approx(float(no_weight[term]), rel=1e-6)


def test_fitting_has_no_factors(model, frames):
    config = LossConfig()
    odd = replace(config, image_refined=7.0, captured_geometry=7.0, boundary=7.0)
    expected = compute(tiny_objective(model, config), frames, "fitting")
    assert compute(tiny_objective(model, odd), frames, "fitting") == expected


def test_smoothness_weights_of_the_bodys_parts(model):
    body = model.persona.body
    parts, smoothness = body.parts_high, make_smoothness(body, LossConfig())
    kept = parts.hand | parts.eye | parts.expression
    assert torch.equal(smoothness.is_kept, kept)
    for i, weight in enumerate(smoothness.weight[:, 0].tolist()):
        expected = 1.0
        if parts.eye[i] or parts.expression[i]:
            expected = 50.0
        if parts.hand[i] or parts.expression_boundary[i]:
            expected = 10.0
        assert weight == 1e5 * expected


@pytest.mark.parametrize(("kind", "n_passes"), [("captured", 2), ("generated", 2), ("fitting", 1)])
def test_a_step_calls_the_rasterizer_at_most_so_often(model, frames, kind, n_passes, monkeypatch):
    passes = []

    def counted(*args, **kwargs):
        passes.append(args)
        return rasterize_together(*args, **kwargs)

    rasterize_together = renders.rasterize_together
    monkeypatch.setattr(renders, "rasterize_together", counted)
    compute(tiny_objective(model), frames, kind)
    assert 0 < len(passes) <= n_passes


def test_auxiliary_colours_learn_from_generated_images_only(model, frames):
    """On photos they are targets; the regularisers hold them constant."""
    objective, avatar = tiny_objective(model), model.persona
    reached = {}
    for kind in ("captured", "generated"):
        value = total(objective.training(frames[kind]))
        (grad,) = torch.autograd.grad(value, [avatar.rgb_aux], allow_unused=True)
        reached[kind] = grad is not None and bool(grad.abs().max() > 0)
    assert reached == {"captured": False, "generated": True}


def test_training_needs_the_initial_colours(model, frames):
    with pytest.raises(ValueError, match="initial colours"):
        Objective(model, LossConfig(), None, None).training(frames["captured"])
