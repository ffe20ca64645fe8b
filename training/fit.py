"""One training, whatever the network: passes over shuffled batches, each altered, and the held-out error after each."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.dataset import read_shards
from training.resume import settle, take_over

Data = dict[str, NDArray[Any]]
BATCH = 256
LEARNING_RATE = 2e-3
SEED = 2026
EXAMPLES = 2048  # samples from which a normalisation learns what its pictures are like


@dataclass(frozen=True)
class Course:
    """How long a training goes on, at which rate it begins, and with which exported network, if any."""

    epochs: int
    first_rate: float
    begin: bytes | None

    @staticmethod
    def add_options(options: ArgumentParser, epochs: int) -> None:
        """What a command line says of it."""
        options.add_argument("--epochs", type=int, default=epochs)
        options.add_argument("--begin", type=Path, help="an earlier training's TFLite to go on from")
        options.add_argument("--rate", type=float, default=LEARNING_RATE, help="learning rate to begin with")

    @classmethod
    def chosen(cls, chosen: Namespace) -> Course:
        """As the command line said."""
        return cls(chosen.epochs, chosen.rate, chosen.begin and chosen.begin.read_bytes())


def fit(
    model: keras.Model,
    parts: tuple[keras.Model, ...],
    learned: tuple[NDArray[Any], ...],
    held_out: tuple[NDArray[Any], ...],
    altered: Callable[..., Any],
    course: Course,
    **compiled: Any,
) -> None:
    """Train a model of two inputs, made of `parts`, the tower first. `learned` and `held_out`: both inputs and what is
    true, `learned` as `altered` takes a batch of it; `compiled`: loss and metrics."""
    if course.begin is not None:
        take_over(course.begin, parts)
        (pictures, _), _ = altered(*(each[:EXAMPLES] for each in learned))
        settle(parts[0], tf.reshape(pictures, (-1, *pictures.shape[-3:])))
    rate = keras.optimizers.schedules.CosineDecay(
        course.first_rate, course.epochs * (len(learned[0]) // BATCH)
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-4, clipnorm=2.0), **compiled)
    order = np.random.default_rng(SEED).permutation(len(learned[0]))
    batches = tf.data.Dataset.from_tensor_slices(tuple(each[order] for each in learned))
    batches = batches.shuffle(20_000, seed=SEED).batch(BATCH, drop_remainder=True).map(altered, 2).prefetch(4)
    *inputs, true = held_out
    checks = tf.data.Dataset.from_tensor_slices((tuple(inputs), true)).batch(512)
    model.fit(batches, epochs=course.epochs, validation_data=checks, verbose=2)


def samples_in(folder: Path) -> Data:
    """All samples of a folder."""
    return read_shards(sorted(folder.glob("???????.npz")))
