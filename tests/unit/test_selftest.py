"""The self-test of a board: the same input everywhere, golden numbers of every model, and what differs is noticed."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from appliance.cli import EXIT_PROBLEMS_FOUND, app
from appliance.errors import ModelsDiffer
from appliance.inference import selftest
from appliance.inference.face import SURE_THRESHOLD, find_faces
from appliance.inference.interpreter import Network
from appliance.inference.landmarks import find_landmarks, region_of_face
from appliance.inference.models import ALLOWED, Models, load_models, locate, read_verified
from appliance.inference.selftest import (
    DIFFERENT,
    GOLDEN_JSON,
    PROBES,
    TOLERANCE,
    Golden,
    check,
    difference,
    drawn_eyes,
    drawn_face,
    drawn_head,
    face_sha256,
    make_golden,
    read_golden,
    self_test,
    summary,
)


@pytest.fixture(scope="module")
def loaded() -> Models:
    return load_models(True)


@pytest.fixture
def golden() -> Golden:
    return copy.deepcopy(read_golden())


# --- the input


def test_the_drawn_face_has_the_same_bytes_everywhere() -> None:
    assert face_sha256(192) == "43b707e46dcd9818621fd88351cddecb36bbc6c705b38d7f59b6b338afeeab47"
    assert [part.shape for part in drawn_eyes()] == [(2, 36, 60, 1), (1, 5)]
    assert [part.shape for part in drawn_head()] == [(1, 48, 64, 1), (1, 138)]


def test_the_drawn_face_is_one_to_the_networks(loaded: Models) -> None:
    """Otherwise their numbers would be those of a wall, which exercise less."""
    picture = drawn_face(360)
    [face] = find_faces(loaded.detector, picture)
    assert face.confidence > SURE_THRESHOLD
    assert find_landmarks(loaded.landmarks, picture, region_of_face(face)).presence > 0.99


# --- the golden numbers


def test_every_allowed_model_has_a_probe_and_golden_numbers(golden: Golden) -> None:
    """After a change of models: `python -m appliance.inference.selftest --write`."""
    assert {probe.model for probe in PROBES} == set(ALLOWED)
    assert set(golden) == {model.sha256 for model in ALLOWED}


def test_this_machine_computes_them_and_writes_the_same_file(loaded: Models) -> None:
    check(loaded)
    made = make_golden()
    for sha256, entry in read_golden().items():
        assert made[sha256]["file"] == entry["file"]
        for ours, theirs in zip(made[sha256]["outputs"], entry["outputs"], strict=True):
            assert np.allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def test_the_file_holds_a_model_a_line() -> None:
    text = GOLDEN_JSON.read_text()
    assert len(text.splitlines()) == len(ALLOWED) + 2
    assert json.loads(text) == read_golden()


# --- what differs


def test_one_changed_value_anywhere_in_an_output_is_noticed() -> None:
    """An overflow at one place, and a small error all over, are both seen by the 64 numbers of an output."""
    rng = np.random.default_rng(4)
    whole = rng.normal(0, 30, 36864).astype(np.float32)
    expected = [summary(whole)]
    assert difference(expected, [whole]) == 0
    for place in rng.integers(0, whole.size, 20):
        spoiled = whole.copy()
        spoiled[place] = 65504.0
        assert difference(expected, [spoiled]) > TOLERANCE
    assert difference(expected, [whole * np.float32(1.0005)]) > TOLERANCE
    assert difference(expected, [whole + np.float32(0.02)]) > TOLERANCE
    assert difference(expected, [whole.astype(np.float16).astype(np.float32)]) > TOLERANCE


def test_rounding_as_between_two_right_kernels_is_not() -> None:
    whole = np.random.default_rng(4).normal(0, 30, 2304).astype(np.float32)
    off = whole + np.random.default_rng(5).normal(0, 1e-4, 2304).astype(np.float32)
    assert 0 < difference([summary(whole)], [off]) < TOLERANCE


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_noticed(bad: float) -> None:
    whole = np.ones(100, np.float32)
    spoiled = whole.copy()
    spoiled[37] = bad
    assert difference([summary(whole)], [spoiled]) == math.inf


def test_another_shape_is_noticed() -> None:
    one = np.ones(100, np.float32)
    assert difference([summary(one)], [one, one]) == math.inf
    assert difference([summary(one)], [one[:9]]) == math.inf


def weakened(content: bytes, places: int) -> bytes:
    """The same graph with 64 half-precision weights set to zero at each of some places, evenly over the file."""
    spoiled = bytearray(content)
    for place in range(places):
        start = (place + 1) * len(content) // (places + 1) & ~1
        spoiled[start : start + 128] = bytes(128)
    return bytes(spoiled)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.model.file)
def test_a_network_with_other_weights_is_noticed(probe: selftest.Probe, golden: Golden) -> None:
    content = read_verified(locate(probe.model), probe.model.sha256)
    expected = golden[probe.model.sha256]["outputs"]
    model = probe.model
    right = Network(content, model.outputs, model.input_range, model.inputs)
    assert difference(expected, probe.run(right)) <= TOLERANCE
    wrong = Network(weakened(content, 8 if model.ours else 1), model.outputs, model.input_range, model.inputs)
    assert difference(expected, probe.run(wrong)) > TOLERANCE


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.model.file)
def test_a_kernel_of_half_precision_is_noticed(probe: selftest.Probe, golden: Golden) -> None:
    """Less is rounded than such a kernel would in every layer: a picture, or the three outputs of our own networks."""

    class Half(Network):
        def run(self, crop_bgr: np.ndarray) -> list[np.ndarray]:
            whole = super().run(crop_bgr)
            tensor = self._interpreter.tensor(self._input)()
            tensor[...] = tensor.astype(np.float16)
            del tensor
            rounded = self._outputs_of_a_run()
            assert any((one != other).any() for one, other in zip(whole, rounded, strict=True))
            return rounded

        def run_tensors(self, *tensors: np.ndarray) -> list[np.ndarray]:
            return [each.astype(np.float16).astype(np.float32) for each in super().run_tensors(*tensors)]

    model = probe.model
    content = read_verified(locate(model), model.sha256)
    network = Half(content, model.outputs, model.input_range, model.inputs)
    assert difference(golden[model.sha256]["outputs"], probe.run(network)) > 2 * TOLERANCE


# --- what a desk does


def test_a_session_is_refused_where_one_loaded_network_differs(loaded: Models, golden: Golden) -> None:
    for probe in PROBES:
        spoiled = copy.deepcopy(golden)
        spoiled[probe.model.sha256]["outputs"][0][0][1] += 1.0
        with pytest.raises(ModelsDiffer, match="other numbers") as caught:
            check(loaded, spoiled)
        assert probe.model.file in caught.value.hint
    check(loaded, golden)


def test_a_network_that_is_not_loaded_is_not_tried(golden: Golden) -> None:
    """With gaze off its model is not even read."""
    without = load_models(False)
    check(without, golden)


def test_a_model_without_golden_numbers_is_named(golden: Golden) -> None:
    del golden[ALLOWED[0].sha256]
    with pytest.raises(ModelsDiffer, match=f"no golden numbers for the model {ALLOWED[0].file}"):
        self_test(golden)


def test_the_report_says_runtime_models_difference_and_time(golden: Golden) -> None:
    report = self_test(golden)
    words = report.in_words()
    assert report.passed
    assert words.startswith(("ai_edge_litert ", "tflite_runtime "))
    for model in ALLOWED:
        [line] = [line for line in words.splitlines() if line.startswith(model.file)]
        assert model.sha256[:12] in line
        assert " ms  difference " in line
        assert line.endswith("  ok")
    assert words.endswith("nothing differs\n")


def test_selftest_command_has_code_0_or_7(monkeypatch: pytest.MonkeyPatch, golden: Golden) -> None:
    run = CliRunner().invoke(app, ["node", "selftest"])
    assert run.exit_code == 0
    assert run.output.endswith("nothing differs\n")
    golden[ALLOWED[1].sha256]["outputs"][0][0][0] += 1.0
    monkeypatch.setattr(selftest, "read_golden", lambda: golden)
    run = CliRunner().invoke(app, ["node", "selftest"])
    assert run.exit_code == EXIT_PROBLEMS_FOUND
    assert f"{ALLOWED[1].file}" in run.output
    assert run.output.count("other numbers than the golden ones") == 1
    assert run.output.endswith(f"{DIFFERENT}; nothing is assessed\n")
