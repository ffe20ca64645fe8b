"""The two networks. The head's: five convolutions on the upper face, joined with the points' shape.

Inputs: `face` (1, 48, 64, 1) and `shape` (1, 138), as `head_pose` makes them. Output (1, 3): yaw, pitch, and roll
against the line between the eyes, in units of ANGLE_UNIT_DEG.

The eyes': six convolutions on each eye, joined with the head's pose. Inputs: `eyes` (2, 36, 60, 1), the image-right eye
mirrored, and `pose` (1, 5), as `eye_crops` and `gaze` make them. Output (1, 3): yaw and pitch to add to the head's, in
units of ANGLE_UNIT_DEG, and the log of the error to expect (degrees). While it learns it also says where the corners
and the iris lie, so that it looks at them; no desk is told, `likeness.py` is.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from appliance.inference.eye_crops import CROP_PX
from appliance.inference.head_pose import FACE_PX, SHAPE_NUMBERS

POSE_NUMBERS = 5  # head yaw, pitch, roll; how open each eye is
EYE_NUMBERS = 64
FACE_NUMBERS = 64
FROM_SHAPE = 48
MARKS = 3  # outer corner, inner corner, middle of the iris
MARKS_FROM = 3  # after this of the six convolutions
FIRST_LOG_DEG = 2.5  # 12 degrees, before anything is learned


def eye_tower() -> keras.Model:
    """One eye (36, 60, 1) to EYE_NUMBERS."""
    eye = layers.Input((CROP_PX[1], CROP_PX[0], 1))
    x = _convolutions(eye, ((16, 2), (24, 1), (32, 2), (32, 1), (48, 2), (56, 1)))
    return keras.Model(eye, layers.Dense(EYE_NUMBERS, activation="relu")(x), name="eye")


def eyes_joined() -> keras.Model:
    """Both eyes' numbers and the pose to the three outputs."""
    joined = layers.Input((2 * EYE_NUMBERS + POSE_NUMBERS,))
    x = layers.Dense(128, activation="relu")(joined)
    x = layers.Dense(48, activation="relu")(x)
    begin = keras.initializers.Constant([0.0, 0.0, FIRST_LOG_DEG])
    return keras.Model(joined, layers.Dense(3, bias_initializer=begin)(x), name="look")


def marks_of(tower: keras.Model) -> keras.Model:
    """One eye (36, 60, 1), through the tower's first layers, to where its marks lie in it: (MARKS, 2) pixels."""
    coarse = [layer.output for layer in tower.layers if isinstance(layer, layers.ReLU)][MARKS_FROM]
    return keras.Model(tower.input, _places(coarse), name="marks")


def eyes_for_training(tower: keras.Model, marks: keras.Model, look: keras.Model) -> keras.Model:
    """Many samples at once: eyes (N, 2, 36, 60, 1), pose (N, 5) to the three outputs and the marks, (N, 3 + 12)."""
    eyes = layers.Input((2, CROP_PX[1], CROP_PX[0], 1))
    pose = layers.Input((POSE_NUMBERS,))
    eye = keras.Model(tower.input, [tower.output, marks.output])
    (left, left_marks), (right, right_marks) = eye(eyes[:, 0]), eye(eyes[:, 1])
    places = [layers.Flatten()(each) for each in (left_marks, right_marks)]
    return keras.Model(
        [eyes, pose], layers.Concatenate()([look(layers.Concatenate()([left, right, pose])), *places])
    )


def _places(x: keras.KerasTensor) -> keras.KerasTensor:
    """Where in the crop each mark is, (N, MARKS, 2): the middle of a map that says how likely it is where."""
    maps = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", use_bias=False)(x)))
    maps = layers.Conv2D(MARKS, 1)(maps)
    height, width = int(maps.shape[1]), int(maps.shape[2])
    likely = layers.Softmax(axis=1)(layers.Reshape((height * width, MARKS))(maps))
    cell_px = CROP_PX[1] / height
    down, across = np.meshgrid(
        *((np.arange(size) + 0.5) * cell_px - 0.5 for size in (height, width)), indexing="ij"
    )
    places = np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)
    return keras.ops.einsum("nck,cd->nkd", likely, places)


def face_tower() -> keras.Model:
    """The upper face (48, 64, 1) to FACE_NUMBERS."""
    face = layers.Input((FACE_PX[1], FACE_PX[0], 1))
    x = _convolutions(face, ((16, 2), (24, 2), (32, 1), (48, 2), (56, 1)))
    return keras.Model(face, layers.Dense(FACE_NUMBERS, activation="relu")(x), name="face")


def from_shape() -> keras.Model:
    """The points' shape (138,) to FROM_SHAPE."""
    shape = layers.Input((SHAPE_NUMBERS,))
    return keras.Model(shape, layers.Dense(FROM_SHAPE, activation="relu")(shape), name="shape")


def head_joined() -> keras.Model:
    """Both together to the three outputs."""
    both = layers.Input((FACE_NUMBERS + FROM_SHAPE,))
    return keras.Model(both, layers.Dense(3)(layers.Dense(48, activation="relu")(both)), name="turn")


def head_for_training(tower: keras.Model, shapes: keras.Model, turn: keras.Model) -> keras.Model:
    """Many samples at once: face (N, 48, 64, 1), shape (N, 138)."""
    face, shape = layers.Input((FACE_PX[1], FACE_PX[0], 1)), layers.Input((SHAPE_NUMBERS,))
    return keras.Model([face, shape], turn(layers.Concatenate()([tower(face), shapes(shape)])))


def _convolutions(x: keras.KerasTensor, filters_and_steps: tuple[tuple[int, int], ...]) -> keras.KerasTensor:
    for filters, step in filters_and_steps:
        x = layers.Conv2D(filters, 3, strides=step, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return layers.Dropout(0.2)(layers.Flatten()(x))
