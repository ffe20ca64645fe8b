"""From a trained model to TFLite: normalisation folded in, weights in half precision, no custom operation."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Convolution = tuple[NDArray[np.float32], NDArray[np.float32], int]
Dense = tuple[NDArray[np.float32], NDArray[np.float32]]


def tflite(function: Any) -> bytes:
    """The file of a tf.function with an input signature."""
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def convolved(x: tf.Tensor, convolutions: list[Convolution]) -> tf.Tensor:
    """Through each convolution and what follows it."""
    for kernel, bias, step in convolutions:
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, step, "SAME") + bias)
    return x


def joined(x: tf.Tensor, layers: list[Dense], last_is_plain: bool = False) -> tf.Tensor:
    """Through each dense layer; the last without a threshold where it is the output."""
    for number, (kernel, bias) in enumerate(layers):
        x = tf.matmul(x, kernel) + bias
        x = x if last_is_plain and number == len(layers) - 1 else tf.nn.relu(x)
    return x


def folded(tower: keras.Model) -> list[Convolution]:
    """Each convolution with the normalisation behind it: kernel, bias, step."""
    found = []
    for layer, following in itertools.pairwise(tower.layers):
        if isinstance(layer, keras.layers.Conv2D):
            gamma, beta, mean, variance = (np.asarray(each) for each in following.get_weights())
            scale = gamma / np.sqrt(variance + following.epsilon)
            kernel = np.asarray(layer.get_weights()[0]) * scale
            found.append(
                (kernel.astype(np.float32), (beta - mean * scale).astype(np.float32), layer.strides[0])
            )
    return found


def dense(model: keras.Model) -> list[Dense]:
    """Kernel and bias of each dense layer."""
    found = [layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return [(np.asarray(kernel), np.asarray(bias)) for kernel, bias in found]
