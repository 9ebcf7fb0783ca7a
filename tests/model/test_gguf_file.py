"""The container against the `gguf` package's own reader, and against broken and hostile bytes."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFWriter, dequantize
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trilaw.core.errors import ModelError
from trilaw.model import gguf_file
from trilaw.model.gguf_file import open_gguf

HUGE = (2**31, 2**32 - 1, 2**61, 2**63, 2**64 - 1)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def entry(name: str, sizes: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def packed(*parts: bytes, version: int = 3, tensors: int = 0, pairs: int = 0, weights: int = 0) -> bytes:
    """A file by the format's own words: magic, version, two counts, pairs, table, padding, weights."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + b"".join(parts)
    return head + bytes(-len(head) % 32) + bytes(weights)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "bad.gguf"
        path.write_bytes(data)
        return path

    return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of value and of array, and some tensors."""
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    writer = GGUFWriter(str(path), "llama")
    for bits in (8, 16, 32, 64):
        getattr(writer, f"add_uint{bits}")(f"u{bits}", 2**bits - 1)
        getattr(writer, f"add_int{bits}")(f"i{bits}", -(2 ** (bits - 1)))
    writer.add_float32("f32", 1e-5)
    writer.add_float64("f64", 1e-5)
    writer.add_bool("yes", True)
    writer.add_bool("no", False)
    writer.add_string("text", "naïve 日本 \U0001f600")
    writer.add_string("nothing", "")
    writer.add_array("texts", ["Ġthe", "", "▁日", "a b"])
    writer.add_array("whole", [1, -2, 2**31 - 1])
    writer.add_array("reals", [0.5, -1e30, 3.0])
    writer.add_array("bytes", b"\x00\x01\xff")
    writer.add_array("bools", [True, False])
    writer.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("b", np.arange(5, dtype=np.float16))
    writer.add_tensor("c", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_all_that_the_packages_reader_finds(whole: Path) -> None:
    file, theirs = open_gguf(whole), GGUFReader(whole)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert file.metadata == fields
    assert {key: type(value) for key, value in file.metadata.items()} == {k: type(v) for k, v in fields.items()}
    assert set(file.places) == {"a", "b", "c"}
    for tensor in theirs.tensors:
        place = file.places[tensor.name]
        assert place.shape == tuple(reversed(tensor.shape.tolist()))
        assert (place.kind, place.start, place.nbytes) == (tensor.tensor_type, tensor.data_offset, tensor.n_bytes)
        (values,) = file.chunks(tensor.name)
        assert np.array_equal(values, tensor.data.reshape(-1).astype(np.float32))
        assert values.flags.writeable, "a copy: torch takes no other array"


@pytest.mark.filterwarnings("ignore::RuntimeWarning:gguf")  # the package's own, of random scales
@pytest.mark.parametrize("kind", GGMLQuantizationType, ids=lambda kind: kind.name)
def test_every_type_of_quantisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: GGMLQuantizationType
) -> None:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    monkeypatch.setattr(gguf_file, "CHUNK", 3 * block)  # so that chunks end inside rows, and the last one is shorter
    raw = np.random.default_rng(kind).integers(0, 256, (4, 4 * block_bytes), np.uint8)
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_tensor("first", np.ones(5, np.float32))
    writer.add_tensor("t", raw, raw_shape=raw.shape, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = open_gguf(path)
    assert file.places["t"].shape == (4, 4 * block)
    try:
        expected = dequantize(GGUFReader(path).get_tensor(1).data, kind)
    except NotImplementedError:
        with pytest.raises(ModelError, match=rf"'t' has the type {kind.name}.*Q8_0"):
            list(file.chunks("t"))
        return
    assert expected.shape == file.places["t"].shape
    chunks = list(file.chunks("t"))
    assert [chunk.size for chunk in chunks] == [3 * block] * 5 + [block]
    assert np.array_equal(
        np.concatenate(chunks).view(np.uint32), np.ascontiguousarray(expected).view(np.uint32).ravel()
    )


def test_a_file_cut_off_anywhere(whole: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "bad.gguf", whole.read_bytes()
    open_gguf(whole)
    path.write_bytes(data[: open_gguf(whole).places["c"].start + 24 * 4])
    open_gguf(path)  # the padding behind the last tensor may be missing
    for length in range(open_gguf(whole).places["c"].start + 24 * 4):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"bad\.gguf (is truncated or broken|is not a GGUF file)"):
            open_gguf(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_bytes_end_in_a_sentence_or_in_values(whole: Path, tmp_path_factory: Any, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "bad.gguf"
    path.write_bytes(content)
    with suppress(ModelError):
        file = open_gguf(path)
        for name, place in file.places.items():
            assert sum(chunk.size for chunk in file.chunks(name)) == np.prod(place.shape)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
@example(b"")
def test_arbitrary_bytes_behind_the_magic(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "bad.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + data)
    with suppress(ModelError):
        open_gguf(path)


@pytest.mark.parametrize("number", HUGE)
def test_huge_numbers_take_no_memory(put: Callable[[bytes], Path], number: int) -> None:
    big = struct.pack("<Q", number)
    array = [struct.pack("<I", kind) + big for kind in (0, 7, 8, 12)]
    files = [
        packed(tensors=number),
        packed(pairs=number),
        packed(struct.pack("<Q", number) + b"key", pairs=1),
        packed(pair("key", 8, big), pairs=1),
        *(packed(pair("key", 9, head), pairs=1) for head in array),
        packed(pair("key", 9, struct.pack("<IQ", 8, 2) + text("a") + big), pairs=1),
        packed(entry("t", (number,)), tensors=1, weights=64),
        packed(entry("t", (2**32, number, number, number)), tensors=1, weights=64),
        packed(entry("t", offset=number // 32 * 32), tensors=1, weights=64),
        packed(text("t") + struct.pack("<I", number % 2**32), tensors=1, weights=64),
    ]
    tracemalloc.start()
    try:
        for data in files:
            path = put(data)
            with pytest.raises(ModelError, match="truncated or broken"):
                open_gguf(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_header_has_a_limit(put: Callable[[bytes], Path], whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "MOST", 100)
    with pytest.raises(ModelError, match="exceeds 100 bytes"):
        open_gguf(whole)
    open_gguf(put(packed(entry("t"), tensors=1, weights=1000)))  # the weights do not count

    long = put(packed(pair("k", 9, struct.pack("<IQ", 8, 1) + text(b"x" * 4_000_000)), pairs=1))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="exceeds 100 bytes"):
            open_gguf(long)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20, "nothing past the limit is read"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not a GGUF file"),
        (b"GGML" + bytes(100), "is not a GGUF file"),
        (packed(version=1), "version 1 of the GGUF format"),
        (packed(version=4), "version 4 of the GGUF format"),
        (packed(version=0), "version 0 of the GGUF format"),
        (packed(pair("k", 13, bytes(8)), pairs=1), "no kind 13 of value"),
        (packed(pair("k", 9, struct.pack("<IQ", 13, 1)), pairs=1), "no kind 13 of value"),
        (packed(pair("k", 9, struct.pack("<IQIQ", 9, 1, 0, 0)), pairs=1), "an array holds arrays"),
        (packed(pair("k", 0, b"1"), pair("k", 0, b"1"), pairs=2), "the key 'k' is there twice"),
        (packed(pair("k", 8, text(b"\xff")), pairs=1), "utf-8"),
        (packed(pair("k", 9, struct.pack("<IQ", 8, 1) + text(b"\xff")), pairs=1), "utf-8"),
        (packed(pair("general.alignment", 4, struct.pack("<I", 0)), pairs=1), "no power of two but 0"),
        (packed(pair("general.alignment", 4, struct.pack("<I", 24)), pairs=1), "no power of two but 24"),
        (packed(pair("general.alignment", 8, text("32")), pairs=1), "no power of two but '32'"),
        (packed(entry("t"), entry("t"), tensors=2, weights=64), "the tensor 't' is there twice"),
        (packed(entry("t", ()), tensors=1, weights=64), "0 dimensions"),
        (packed(entry("t", (1, 1, 1, 1, 1)), tensors=1, weights=64), "5 dimensions"),
        (packed(entry("t", (4, 0)), tensors=1, weights=64), "rows of 4 weights"),
        (packed(entry("t", (33,), kind=8), tensors=1, weights=64), "rows of 33 weights in Q8_0"),
        (packed(entry("t", offset=4), tensors=1, weights=64), "at byte 4"),
        (packed(entry("t", (17,)), tensors=1, weights=64), "'t' reaches past the end"),
        (packed(entry("t", kind=5), tensors=1, weights=64), "'t' has the type 5 of quantisation.*Q8_0"),
    ],
)
def test_what_is_wrong_is_said(put: Callable[[bytes], Path], data: bytes, complaint: str) -> None:
    with pytest.raises(ModelError, match=rf"bad\.gguf.*{complaint}"):
        open_gguf(put(data))


def test_version_2_and_another_alignment(put: Callable[[bytes], Path]) -> None:
    head = packed(pair("general.alignment", 4, struct.pack("<I", 128)), entry("t"), version=2, tensors=1, pairs=1)
    file = open_gguf(put(head.ljust(128, b"\0") + np.arange(4, dtype="<f4").tobytes()))
    assert file.places["t"].start == 128
    assert np.concatenate(list(file.chunks("t"))).tolist() == [0, 1, 2, 3]


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(str(tmp_path / "m.gguf"), "llama", endianess=GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="big-endian"):
        open_gguf(tmp_path / "m.gguf")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        open_gguf(tmp_path)
