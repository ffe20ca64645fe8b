"""A crop as another lens, light and camera software would have shown it; for training alone."""

from __future__ import annotations

import tensorflow as tf


def another_look(crops: tf.Tensor) -> tf.Tensor:
    """Crops (N, height, width, 1) with another sharpness, contrast, noise, and light that falls off."""
    count = tf.shape(crops)[0]

    def drawn(low: float, high: float) -> tf.Tensor:
        return tf.random.uniform((count, 1, 1, 1), low, high)

    soft = tf.nn.avg_pool2d(tf.nn.avg_pool2d(crops, 3, 1, "SAME"), 3, 1, "SAME")
    crops += drawn(-0.8, 1.6) * (crops - soft)
    crops += drawn(-0.25, 0.25) * (crops**2 - 1.0)
    across = tf.linspace(-1.0, 1.0, tf.shape(crops)[2])[None, None, :, None]
    down = tf.linspace(-1.0, 1.0, tf.shape(crops)[1])[None, :, None, None]
    crops += drawn(-0.6, 0.6) * tf.cast(across, tf.float32) + drawn(-0.5, 0.5) * tf.cast(down, tf.float32)
    crops *= drawn(0.7, 1.35)
    return crops + tf.random.normal(tf.shape(crops)) * drawn(0.0, 0.3)


def partly_hidden(crops: tf.Tensor) -> tf.Tensor:
    """Crops (N, height, width, 1), half of them with an even rectangle somewhere, half with an even band from the top
    down: hands, hair, caps."""
    count = tf.shape(crops)[0]

    def drawn(low: float, high: float) -> tf.Tensor:
        return tf.random.uniform((count, 1, 1, 1), low, high)

    across = tf.linspace(-1.0, 1.0, tf.shape(crops)[2])[None, None, :, None]
    down = tf.linspace(-1.0, 1.0, tf.shape(crops)[1])[None, :, None, None]
    # Half of these sizes are below nothing.
    patch = (tf.abs(across - drawn(-1.0, 1.0)) < drawn(-0.5, 0.5)) & (
        tf.abs(down - drawn(-1.0, 1.0)) < drawn(0.1, 0.6)
    )
    fringe = down + 0.3 * drawn(-1.0, 1.0) * across < drawn(-1.7, -0.3)
    crops = tf.where(patch, drawn(-2.0, 2.0), crops)
    return tf.where(fringe, drawn(-2.5, 1.5), crops)
