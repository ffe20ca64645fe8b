"""A network that was exported goes on learning: its layers back into the Keras models that it was made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

Array = NDArray[np.float32]


def take_over(content: bytes, models: Sequence[keras.Model]) -> None:
    """Kernels and biases of a TFLite file into the layers of the same shape, which none share."""
    there = {kernel.shape: (kernel, bias) for kernel, bias in _layers(content)}
    for model in models:
        for layer, following in itertools.pairwise([*model.layers, None]):
            if isinstance(layer, keras.layers.Dense):
                layer.set_weights(list(there[layer.get_weights()[0].shape]))
            elif isinstance(layer, keras.layers.Conv2D):
                kernel, bias = there[layer.get_weights()[0].shape]
                layer.set_weights([kernel])
                # Until `settle`: no mean, and the variance that divides by one.
                unit = np.ones_like(bias)
                following.set_weights([unit, bias, 0.0 * bias, unit - following.epsilon])


def settle(tower: keras.Model, examples: tf.Tensor) -> None:
    """The normalisations of a tower that was taken over keep what they do and learn what `examples` are like."""
    x = examples
    for layer in tower.layers[1:]:
        if isinstance(layer, keras.layers.BatchNormalization):
            _, bias, _, _ = layer.get_weights()
            mean, variance = (np.asarray(each) for each in tf.nn.moments(x, [0, 1, 2]))
            layer.set_weights([np.sqrt(variance + layer.epsilon), bias + mean, mean, variance])
        x = layer(x, training=False)


def _layers(content: bytes) -> Iterator[tuple[Array, Array]]:
    """Kernel, as Keras has it, and bias of each convolution and dense layer."""
    # The plain one: XNNPACK would show its own one step.
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    steps: list[dict[str, Any]] = interpreter._get_ops_details()
    halved = {
        int(step["outputs"][0]): int(step["inputs"][0]) for step in steps if step["op_name"] == "DEQUANTIZE"
    }
    for step in steps:
        if step["op_name"] not in ("CONV_2D", "FULLY_CONNECTED"):
            continue
        _, *places = (int(each) for each in step["inputs"])
        kernel, bias = (interpreter.get_tensor(halved.get(at, at)).astype(np.float32) for at in places)
        yield (kernel.transpose(1, 2, 3, 0) if kernel.ndim == 4 else kernel.T), bias
