"""Trains the eyes' network and writes it as TFLite.

python -m training.train_eyes DATA HELD_OUT HEAD.tflite OUT.tflite [--epochs N] [--begin EARLIER.tflite --rate R]

Beside OUT.tflite it writes OUT.marks.tflite, which no desk needs: where it takes corners and irises to lie, for
`likeness.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from appliance.inference.eye_crops import CROP_PX
from appliance.inference.head_pose import ANGLE_UNIT_DEG
from training.dataset import CROP_STEPS, as_shown
from training.export import convolved, dense, folded, joined, tflite
from training.fit import SEED, Course, Data, fit, samples_in
from training.looks import another_look
from training.network import (
    EYE_NUMBERS,
    MARKS,
    POSE_NUMBERS,
    eye_tower,
    eyes_for_training,
    eyes_joined,
    marks_of,
)
from training.overdrawn import overdrawn
from training.train_head import with_head

LEAST_LOG_DEG = -1.0
# Of the plain error beside the doubted one: what the network gives up on would else teach it nothing.
PLAIN_SHARE = 0.1
# What a pixel off a mark weighs, beside a degree of the look.
MARKS_SHARE = 1.0
# How far the head's network is off on people in yaw and pitch (one deviation), beyond its error on drawn heads.
HEAD_OFF_DEG = (2.5, 7.0)
LOOK = slice(0, 3)
PLACES = slice(3, 3 + 2 * 2 * MARKS)
PERSON = PLACES.stop


def targets(data: Data) -> NDArray[np.float32]:
    """LOOK: what is to be added to the measured head, and the cosine that makes a yaw a distance; PLACES: the marks;
    PERSON: 1 for a person's eyes, 0 for MakeHuman's."""
    add = (data["gaze"] - data["read"][:, :2]) / ANGLE_UNIT_DEG
    marks = data["marks"].reshape(len(add), -1)
    of_all = (add, np.cos(np.radians(data["gaze"][:, 1:2])), marks, data["person"][:, None])
    return np.concatenate(of_all, axis=1).astype(np.float32)


def loss(true: tf.Tensor, said: tf.Tensor) -> tf.Tensor:
    """Laplace: the angle between true and said direction over the error that the network expects; and the marks."""
    error = error_deg(true, said)
    spread = tf.maximum(said[:, 2], LEAST_LOG_DEG)
    look = tf.reduce_mean(error * tf.exp(-spread) + spread) + PLAIN_SHARE * tf.reduce_mean(error)
    return look + MARKS_SHARE * marks_px(true, said)


def error_deg(true: tf.Tensor, said: tf.Tensor) -> tf.Tensor:
    """Angle in degrees, as on a plane."""
    across = (said[:, 0] - true[:, 0]) * true[:, 2]
    up = said[:, 1] - true[:, 1]
    return ANGLE_UNIT_DEG * tf.sqrt(across**2 + up**2 + 1e-6)


def marks_px(true: tf.Tensor, said: tf.Tensor) -> tf.Tensor:
    """Mean distance in pixels from the marks that lie in their crops."""
    places = tf.reshape(true[:, PLACES], (-1, 2))
    off = places - tf.reshape(said[:, PLACES], (-1, 2))
    inside = tf.reduce_all((places > 0.0) & (places < tf.constant(CROP_PX, tf.float32) - 1.0), axis=1)
    far = tf.boolean_mask(tf.sqrt(tf.reduce_sum(off**2, axis=1) + 1e-4), inside)
    return tf.math.divide_no_nan(tf.reduce_sum(far), tf.cast(tf.size(far), tf.float32))


def altered(
    eyes: tf.Tensor, pose: tf.Tensor, true: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A batch as it could also have been: half of it seen in a mirror, people's with other lids and a head that is read
    wrong, another lens and light, some noise."""
    eyes = tf.cast(eyes, tf.float32)[..., None] / CROP_STEPS
    count = tf.shape(eyes)[0]
    mirror = tf.random.uniform((count,)) < 0.5
    eyes = tf.where(mirror[:, None, None, None, None], eyes[:, ::-1], eyes)
    flip = tf.constant([-1.0, 1.0, -1.0])
    mirrored_pose = tf.concat([pose[:, :3] * flip, pose[:, 4:5], pose[:, 3:4]], axis=1)
    pose = tf.where(mirror[:, None], mirrored_pose, pose)
    look, (left, right), person = true[:, LOOK], tf.split(true[:, PLACES], 2, axis=1), true[:, PERSON:]
    look = tf.where(mirror[:, None], look * tf.constant([-1.0, 1.0, 1.0]), look)
    marks = tf.where(mirror[:, None], tf.concat([right, left], axis=1), true[:, PLACES])
    eyes = overdrawn(eyes, tf.reshape(marks, (-1, 2, MARKS, 2)), person[:, 0] > 0.0)
    eyes = tf.reshape(another_look(tf.reshape(eyes, (-1, CROP_PX[1], CROP_PX[0], 1))), tf.shape(eyes))
    off = tf.random.normal((count, 2)) * tf.constant(HEAD_OFF_DEG) / ANGLE_UNIT_DEG * person
    pose += tf.random.normal(tf.shape(pose)) * tf.constant([0.05, 0.05, 0.03, 0.03, 0.03])
    pose += tf.pad(off, [[0, 0], [0, POSE_NUMBERS - 2]])
    return (eyes, pose), tf.concat([look - tf.pad(off, [[0, 0], [0, 1]]), marks, person], axis=1)


def train(data: Data, held_out: Data, course: Course) -> tuple[keras.Model, keras.Model, keras.Model]:
    """The tower, the marks and the look, trained; prints the held-out error after each epoch."""
    keras.utils.set_random_seed(SEED)
    tower, look = eye_tower(), eyes_joined()
    marks = marks_of(tower)
    model = eyes_for_training(tower, marks, look)
    fit(
        model,
        (tower, look),
        (data["eyes"], data["pose"], targets(data)),
        (as_shown(held_out["eyes"]), held_out["pose"], targets(held_out)),
        altered,
        course,
        loss=loss,
        metrics=[error_deg, marks_px],
    )
    return tower, marks, look


def export(tower: keras.Model, look: keras.Model) -> bytes:
    """TFLite: both eyes go through one tower as a batch of two."""
    convolutions, to_numbers, to_look = folded(tower), dense(tower), dense(look)

    @tf.function(
        input_signature=[
            tf.TensorSpec((2, CROP_PX[1], CROP_PX[0], 1), tf.float32, "eyes"),
            tf.TensorSpec((1, POSE_NUMBERS), tf.float32, "pose"),
        ]
    )
    def run(eyes: tf.Tensor, pose: tf.Tensor) -> dict[str, tf.Tensor]:
        x = joined(tf.reshape(convolved(eyes, convolutions), (2, -1)), to_numbers)
        x = tf.concat([tf.reshape(x, (1, 2 * EYE_NUMBERS)), pose], axis=1)
        return {"look": joined(x, to_look, last_is_plain=True)}

    return tflite(run)


def export_marks(marks: keras.Model) -> bytes:
    """TFLite of what says where the marks of both eyes lie."""

    @tf.function(input_signature=[tf.TensorSpec((2, CROP_PX[1], CROP_PX[0], 1), tf.float32, "eyes")])
    def run(eyes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"marks": marks(eyes, training=False)}

    return tflite(run)


def main() -> None:
    """Train, export, say what came out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("held_out", type=Path)
    options.add_argument("head", type=Path, help="the head's network, which reads each sample first")
    options.add_argument("out", type=Path)
    Course.add_options(options, epochs=30)
    chosen = options.parse_args()
    data, held_out = (
        with_head(chosen.head.read_bytes(), samples_in(folder)) for folder in (chosen.data, chosen.held_out)
    )
    tower, marks, look = train(data, held_out, Course.chosen(chosen))
    content = export(tower, look)
    chosen.out.write_bytes(content)
    chosen.out.with_suffix(".marks.tflite").write_bytes(export_marks(marks))
    print(
        json.dumps({"samples": len(data["eyes"]), "held_out": len(held_out["eyes"]), "bytes": len(content)})
    )


if __name__ == "__main__":
    main()
