"""One TFLite network behind one call; runs in the inference process on one thread.

LiteRT (`ai-edge-litert`) where it is installed, else its predecessor `tflite-runtime`, which has the same
call shape.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from appliance.errors import ModelMissing

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    try:
        from tflite_runtime.interpreter import Interpreter
    except ImportError as missing:
        raise ModelMissing(
            "no TFLite runtime is installed (ai-edge-litert or tflite-runtime)",
            "install ai-edge-litert, which this project's extra 'node' asks for",
        ) from missing


class Network:
    """A loaded model: one square RGB image in, or several tensors; `invocations` counts its runs."""

    def __init__(
        self,
        content: bytes,
        outputs: Sequence[str],
        input_range: tuple[float, float] = (0.0, 1.0),
        inputs: Sequence[str] = (),
    ) -> None:
        """`outputs` names the tensors that a run returns, in that order, `inputs` those that `run_tensors` takes.

        `input_range` is what 0..255 of a picture maps to.
        """
        # One thread: on a node the other cores belong to the camera, which must never wait.
        with _native_words_aside():
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        given = self._interpreter.get_input_details()
        self._input: int = given[0]["index"]
        self.input_size: int = int(given[0]["shape"][1])
        input_of = {detail["name"]: detail["index"] for detail in given}
        self._inputs = [input_of[name] for name in inputs]
        index_of = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        self._outputs = [index_of[name] for name in outputs]
        low, high = input_range
        self._value_of = np.arange(256, dtype=np.float32) * np.float32((high - low) / 255.0) + np.float32(low)
        self.invocations = 0

    def run(self, crop_bgr: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Outputs for one `input_size` x `input_size` x 3 BGR crop, each flattened to one axis."""
        tensor = self._interpreter.tensor(self._input)()[0]
        # Looked up in a quarter of the time that it takes to work it out.
        cv2.LUT(cv2.cvtColor(crop_bgr, cv2.COLOR_BGR2RGB), self._value_of, dst=tensor)
        # The runtime refuses to run while somebody still holds a view of its memory.
        del tensor
        return self._outputs_of_a_run()

    def run_tensors(self, *tensors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Outputs for tensors of the model's own shapes, in the order of `inputs`; each flattened to one axis."""
        for index, values in zip(self._inputs, tensors, strict=True):
            self._interpreter.set_tensor(index, values)
        return self._outputs_of_a_run()

    def _outputs_of_a_run(self) -> list[NDArray[np.float32]]:
        self.invoke()
        return [self._interpreter.get_tensor(index).reshape(-1) for index in self._outputs]

    def invoke(self) -> None:
        """Run on whatever the input holds.

        On its own it is the bare cost that the benchmark compares with.
        """
        self._interpreter.invoke()
        self.invocations += 1


@contextmanager
def _native_words_aside() -> Iterator[None]:
    """LiteRT announces its delegate on descriptor 2 and has no switch for that; what a person reads there is ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
