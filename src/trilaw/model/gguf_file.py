"""The container of GGUF: key-value pairs and a table of where each tensor lies, read straight from the mapped bytes.

Format: ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian. The file comes from strangers: a count, length, type or offset is
used only after it was checked against the bytes that are there, and all that stands before the weights may take `MOST` bytes, so
memory is bounded too. Departs from the format in one point: arrays of arrays, which no known model has, are refused.

The `gguf` package knows the types and undoes quantisation. It has a reader as well, which makes several array views for each token
of the vocabulary and so takes seconds.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from trilaw.core.errors import ModelError
from trilaw.model.memory import drop_pages

MOST = 64 << 20  # bytes before the weights; the largest vocabularies known (256,000 tokens) take a quarter of it
VERSIONS = (2, 3)
DIMENSIONS = 4  # the most that ggml's tensors have
CHUNK = 1 << 17  # weights dequantised at once: enough to outweigh numpy's overhead, few enough for a processor's cache
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]
_LEAST_PAIR, _LEAST_TENSOR = (
    8 + 4 + 1,
    8 + 4 + 8 + 4 + 8,
)  # bytes of a pair and of an entry in the table, their names empty


class Place(NamedTuple):
    """A tensor in the file: `nbytes` from byte `start`, whole and inside the file; its type, and its shape in torch's order."""

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    nbytes: int


class GGUFFile(NamedTuple):
    path: Path
    metadata: dict[str, Any]  # numbers, bools, strings, and lists of one kind of these
    places: dict[str, Place]  # by the tensor's name
    data: mmap.mmap  # the whole file

    def chunks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The weights of a tensor in order, flat, about `CHUNK` at a time.

        Raises ModelError for a type that cannot be dequantised.
        """
        kind, _, start, nbytes = self.places[name]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        step = max(CHUNK // block, 1) * block_bytes
        for at in range(start, start + nbytes, step):
            row = np.frombuffer(self.data, np.uint8, min(step, start + nbytes - at), at)
            try:
                with np.errstate(all="ignore"):  # a broken scale gives inf or nan, which the model's first use tells of
                    values = dequantize(row[None], kind)[0]
            except NotImplementedError:
                raise ModelError(
                    f"{self.path}: '{name}' has the type {kind.name}, which cannot be dequantised; use another quantisation, "
                    "Q8_0 for one."
                ) from None
            yield values if values.flags.writeable else values.copy()  # float32 is a view of the file
        drop_pages(np.frombuffer(self.data, np.uint8, nbytes, start).ctypes.data, nbytes)


class _Broken(Exception):
    """The text is the reason."""


def open_gguf(path: Path) -> GGUFFile:
    """What stands in the file before the weights, and the mapped file.

    Raises ModelError for a file that is missing, no GGUF, truncated or contradicting itself, of another version or byte order, or with
    a type of quantisation that the `gguf` package does not know.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: it does not begin with 'GGUF'.")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = _Header(data)
    try:
        version = header.number(_U32)
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise ModelError(f"{path} is big-endian, which is not supported; use the little-endian file of this model.")
        if version not in VERSIONS:
            raise ModelError(
                f"{path} has version {version} of the GGUF format, supported are {VERSIONS[0]} and {VERSIONS[1]}; use another file."
            )
        tensors, pairs = header.number(_U64), header.number(_U64)
        metadata = header.pairs(pairs)
        places = header.places(tensors, metadata.get("general.alignment", 32), path)
    except (_Broken, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is truncated or broken ({error}); fetch it again.") from None
    return GGUFFile(path, metadata, places, data)


class _Header:
    """Reads on from byte `at`; never past the end of the file or of `MOST`."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 4  # behind the magic
        self.end = min(len(data), MOST)

    def step(self, size: int) -> int:
        """Go on by `size` bytes; where they begin."""
        start = self.at
        if size > self.end - start:
            raise _Broken(
                f"the header ends at byte {self.end:,}" if self.end < MOST else f"the header exceeds {MOST:,} bytes"
            )
        self.at += size
        return start

    def number(self, form: struct.Struct) -> Any:
        return form.unpack_from(self.data, self.step(form.size))[0]

    def string(self) -> str:
        start = self.step(self.number(_U64))
        return str(self.data[start : self.at], "utf-8")

    def strings(self, count: int) -> list[str]:
        """`count` strings. A vocabulary has 100,000 of them, so this is `string` written out."""
        self.room(count, _U64.size)
        data, at, end, length = self.data, self.at, self.end, _U64.unpack_from
        found = []
        for _ in range(count):
            start = at + 8
            at = start + length(data, at)[0] if start <= end else start
            if at > end:
                self.step(at - self.at)  # complains
            found.append(str(data[start:at], "utf-8"))
        self.at = at
        return found

    def room(self, count: int, least: int) -> None:
        """Complain now of `count` items of at least `least` bytes for which there is no room."""
        self.step(count * least)
        self.at -= count * least

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(self.form(kind))
        kind, count = self.number(_U32), self.number(_U64)
        if kind == _STRING:
            return self.strings(count)
        form = self.form(kind)
        start = self.step(count * form.size)
        return np.frombuffer(self.data, form.format, count, start).tolist()  # numpy has the same letters

    def form(self, kind: int) -> struct.Struct:
        if kind not in _NUMBERS:
            raise _Broken(f"there is no kind {kind} of value" if kind != _ARRAY else "an array holds arrays")
        return _NUMBERS[kind]

    def pairs(self, count: int) -> dict[str, Any]:
        self.room(count, _LEAST_PAIR)
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.string()
            if key in found:
                raise _Broken(f"the key {_short(key)} is there twice")
            found[key] = self.value(self.number(_U32))
        return found

    def places(self, count: int, alignment: Any, path: Path) -> dict[str, Place]:
        """The table of tensors. Their bytes begin at the next multiple of `alignment` behind it."""
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise _Broken(f"general.alignment is no power of two but {_short(alignment)}")
        self.room(count, _LEAST_TENSOR)
        found: dict[str, Place] = {}
        for _ in range(count):
            name = self.string()
            if name in found:
                raise _Broken(f"the tensor {_short(name)} is there twice")
            dimensions = self.number(_U32)
            if not 1 <= dimensions <= DIMENSIONS:
                raise _Broken(f"the tensor {_short(name)} has {dimensions} dimensions")
            sizes = [self.number(_U64) for _ in range(dimensions)]
            number, offset = self.number(_U32), self.number(_U64)
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                raise ModelError(
                    f"{path}: the tensor {_short(name)} has the type {number} of quantisation, which is not known here; "
                    "use another file, Q8_0 for one."
                ) from None
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if 0 in sizes or sizes[0] % block or offset % alignment:
                raise _Broken(
                    f"the tensor {_short(name)} has rows of {sizes[0]:,} weights in {kind.name} at byte {offset:,}"
                )
            found[name] = Place(kind, tuple(reversed(sizes)), offset, prod(sizes) // block * block_bytes)
        first = -(-self.at // alignment) * alignment
        for name, place in found.items():
            if first + place.start + place.nbytes > len(self.data):
                raise _Broken(f"the tensor {_short(name)} reaches past the end of the file")
        return {name: place._replace(start=first + place.start) for name, place in found.items()}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
