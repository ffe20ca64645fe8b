"""One training, whatever the network: passes over shuffled batches, each altered, and the held-out error after each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.dataset import read_shards

Data = dict[str, NDArray[Any]]
BATCH = 256
LEARNING_RATE = 2e-3
SEED = 2026


def fit(
    model: keras.Model,
    learned: tuple[NDArray[Any], ...],
    held_out: tuple[NDArray[Any], ...],
    altered: Callable[..., Any],
    epochs: int,
    first_rate: float = LEARNING_RATE,
    **compiled: Any,
) -> None:
    """Train a model of two inputs. `learned` and `held_out`: both inputs and what is true, `learned` as `altered` takes
    a batch of it; `compiled`: loss and metrics."""
    rate = keras.optimizers.schedules.CosineDecay(first_rate, epochs * (len(learned[0]) // BATCH))
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=2.0), **compiled)
    order = np.random.default_rng(SEED).permutation(len(learned[0]))
    batches = tf.data.Dataset.from_tensor_slices(tuple(each[order] for each in learned))
    batches = batches.shuffle(20_000, seed=SEED).batch(BATCH, drop_remainder=True).map(altered, 2).prefetch(4)
    *inputs, true = held_out
    checks = tf.data.Dataset.from_tensor_slices((tuple(inputs), true)).batch(512)
    model.fit(batches, epochs=epochs, validation_data=checks, verbose=2)


def samples_in(folder: Path) -> Data:
    """All samples of a folder."""
    return read_shards(sorted(folder.glob("???????.npz")))
