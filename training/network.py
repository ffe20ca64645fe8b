"""The eyes' network: six convolutions on each eye, joined with the head's pose; what it adds to the head's angles, and
how sure it is.

Inputs: `eyes` (2, 36, 60, 1), the image-right eye mirrored, and `pose` (1, 5), both as `eye_crops` makes them. Output
(1, 3): yaw and pitch to add to the head's, in units of ANGLE_UNIT_DEG, and the log of the error to expect (degrees).
"""

from __future__ import annotations

import keras
from keras import layers

from appliance.inference.eye_crops import CROP_PX, POSE_NUMBERS

EYE_NUMBERS = 64
FIRST_LOG_DEG = 2.5  # 12 degrees, before anything is learned


def eye_tower() -> keras.Model:
    """One eye (36, 60, 1) to EYE_NUMBERS."""
    eye = layers.Input((CROP_PX[1], CROP_PX[0], 1))
    x = eye
    for filters, step in ((16, 2), (24, 1), (32, 2), (32, 1), (48, 2), (56, 1)):
        x = layers.Conv2D(filters, 3, strides=step, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(eye, layers.Dense(EYE_NUMBERS, activation="relu")(x), name="eye")


def head_layers() -> keras.Model:
    """Both eyes' numbers and the pose to the three outputs."""
    joined = layers.Input((2 * EYE_NUMBERS + POSE_NUMBERS,))
    x = layers.Dense(64, activation="relu")(joined)
    x = layers.Dense(32, activation="relu")(x)
    begin = keras.initializers.Constant([0.0, 0.0, FIRST_LOG_DEG])
    return keras.Model(joined, layers.Dense(3, bias_initializer=begin)(x), name="look")


def for_training(tower: keras.Model, look: keras.Model) -> keras.Model:
    """Many samples at once: eyes (N, 2, 36, 60, 1), pose (N, 5)."""
    eyes = layers.Input((2, CROP_PX[1], CROP_PX[0], 1))
    pose = layers.Input((POSE_NUMBERS,))
    both = [tower(eyes[:, 0]), tower(eyes[:, 1])]
    return keras.Model([eyes, pose], look(layers.Concatenate()([*both, pose])))
