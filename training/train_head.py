"""Trains the head's network and writes it as TFLite.

python -m training.train_head DATA HELD_OUT OUT.tflite [--epochs N] [--begin EARLIER.tflite --rate R]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from appliance.inference.head_pose import (
    ANGLE_UNIT_DEG,
    FACE_PX,
    MIRRORED,
    PITCH_ZERO_DEG,
    SHAPE_NUMBERS,
    angles_deg,
)
from appliance.inference.interpreter import Network
from appliance.inference.models import HEAD
from training.dataset import CROP_STEPS, as_shown
from training.export import convolved, dense, folded, joined, tflite
from training.fit import SEED, Course, Data, fit, samples_in
from training.looks import another_look, partly_hidden
from training.network import face_tower, from_shape, head_for_training, head_joined

# Degrees of roll matter less: they turn a crop, and the line between the eyes says nearly all of them.
ROLL_SHARE = 0.1
# How far the landmark network's points wander from one frame to the next, in sizes of the face.
POINT_NOISE = 0.01


def targets(data: Data) -> NDArray[np.float32]:
    """Yaw, pitch, and roll against the line between the eyes: (N, 3)."""
    turned = data["head"] - np.stack([np.zeros_like(data["angle"])] * 2 + [data["angle"]], axis=1)
    return (turned / ANGLE_UNIT_DEG).astype(np.float32)


def loss(true: tf.Tensor, said: tf.Tensor) -> tf.Tensor:
    """Mean degrees off."""
    off = said - true
    aside = tf.sqrt(off[:, 0] ** 2 + off[:, 1] ** 2 + 1e-6)
    return ANGLE_UNIT_DEG * tf.reduce_mean(aside + ROLL_SHARE * tf.abs(off[:, 2]))


def altered(
    face: tf.Tensor, shape: tf.Tensor, true: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A batch as it could also have been: half of it seen in a mirror, something before the face, another lens and
    light, points a little off."""
    face = tf.cast(face, tf.float32)[..., None] / CROP_STEPS
    mirror = tf.random.uniform((tf.shape(face)[0],)) < 0.5
    face = tf.where(mirror[:, None, None, None], face[:, :, ::-1], face)
    points = tf.gather(tf.reshape(shape, (-1, SHAPE_NUMBERS // 3, 3)), MIRRORED, axis=1)
    flipped = tf.reshape(points * tf.constant([-1.0, 1.0, 1.0]), (-1, SHAPE_NUMBERS))
    shape = tf.where(mirror[:, None], flipped, shape)
    true = tf.where(mirror[:, None], true * tf.constant([-1.0, 1.0, -1.0]), true)
    face = tf.roll(another_look(partly_hidden(face)), tf.random.uniform((2,), -1, 2, tf.int32), [1, 2])
    return (face, shape + tf.random.normal(tf.shape(shape)) * POINT_NOISE), true


def train(data: Data, held_out: Data, course: Course) -> tuple[keras.Model, keras.Model, keras.Model]:
    """The tower, what reads the shape, and what joins both, trained; prints the held-out error after each epoch."""
    keras.utils.set_random_seed(SEED)
    parts = face_tower(), from_shape(), head_joined()
    model = head_for_training(*parts)
    fit(
        model,
        parts,
        (data["face"], data["shape"], targets(data)),
        (as_shown(held_out["face"]), held_out["shape"], targets(held_out)),
        altered,
        course,
        loss=loss,
    )
    return parts


def export(tower: keras.Model, shapes: keras.Model, turn: keras.Model) -> bytes:
    """TFLite."""
    convolutions, to_numbers, of_shape, to_turn = folded(tower), dense(tower), dense(shapes), dense(turn)

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, FACE_PX[1], FACE_PX[0], 1), tf.float32, "face"),
            tf.TensorSpec((1, SHAPE_NUMBERS), tf.float32, "shape"),
        ]
    )
    def run(face: tf.Tensor, shape: tf.Tensor) -> dict[str, tf.Tensor]:
        seen = joined(tf.reshape(convolved(face, convolutions), (1, -1)), to_numbers)
        both = tf.concat([seen, joined(shape, of_shape)], axis=1)
        return {"turn": joined(both, to_turn, last_is_plain=True)}

    return tflite(run)


def with_head(content: bytes, data: Data) -> Data:
    """The same samples with what the head's network reads of each: `read` (yaw, pitch, roll; degrees), and `pose` as
    the eyes' network is told."""
    network = Network(content, HEAD.outputs, inputs=HEAD.inputs)
    read = np.array(
        [
            angles_deg(network.run_tensors(face[None], shape[None])[0])
            for face, shape in zip(as_shown(data["face"]), data["shape"], strict=True)
        ],
        np.float32,
    )
    read[:, 2] += data["angle"]
    pose = np.concatenate([read / ANGLE_UNIT_DEG, data["open_by"]], axis=1).astype(np.float32)
    return data | {"read": read, "pose": pose}


def head_error_deg(data: Data) -> NDArray[np.float64]:
    """How far yaw, pitch and roll read `with_head` are off (N, 3): drawn heads' zero of pitch is not people's."""
    return np.abs(data["read"] + [0.0, PITCH_ZERO_DEG, 0.0] - data["head"])


def main() -> None:
    """Train, export, say what came out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("held_out", type=Path)
    options.add_argument("out", type=Path)
    Course.add_options(options, epochs=16)
    chosen = options.parse_args()
    data, held_out = samples_in(chosen.data), samples_in(chosen.held_out)
    chosen.out.write_bytes(export(*train(data, held_out, Course.chosen(chosen))))
    off = head_error_deg(with_head(chosen.out.read_bytes(), held_out))
    yaw, pitch, _ = off.mean(axis=0)
    print(f"{len(data['face'])} samples; held out {len(off)}: yaw {yaw:.2f}, pitch {pitch:.2f} degrees off")


if __name__ == "__main__":
    main()
