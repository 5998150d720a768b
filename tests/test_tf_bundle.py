"""TensorFlow checkpoints without TensorFlow: what TensorFlow wrote is read, and what is damaged is found and named."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import flip
from weight_files import arrays_of, write_bundle

from vfbench.errors import MissingData
from vfbench.weights import tf_bundle

# Written by TensorFlow 2.21: RGB/a/w = [[0, 1, 2], [3, 4, 5]], RGB/a/b = [0.5, -1], global_step = 7 (int64).
REAL_INDEX = base64.b64decode("""
AAAGCAEaAggBAAcPUkdCL2EvYggBEgQSAggCKAg1xa8hUgYBFXcIARIIEgIIAhICCAMgCCgYNcDbPRcACw1nbG9iYWxfc3RlcAgJ
EgAgICgINbvXnxEAAAAAAQAAAAC9TwiQAAAAAAEAAAAAwPKhsAABAmgAXgAAAAABAAAAAKdrsm1jCHAOAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAV/uAiyR1R9s=
""")
REAL_DATA = base64.b64decode("""
AAAAPwAAgL8AAAAAAACAPwAAAEAAAEBAAACAQAAAoEAHAAAAAAAAAA==
""")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    (tmp_path / "m.ckpt.index").write_bytes(REAL_INDEX)
    (tmp_path / "m.ckpt.data-00000-of-00001").write_bytes(REAL_DATA)
    return tmp_path / "m.ckpt"


def floats(prefix: Path) -> dict[str, np.ndarray[Any, Any]]:
    entries = tf_bundle.read_index(prefix)
    return tf_bundle.read_tensors(
        prefix, {name: entry for name, entry in entries.items() if entry.dtype == tf_bundle.FLOAT32}
    )


def test_what_tensorflow_wrote_is_read(real: Path) -> None:
    entries = tf_bundle.read_index(real)
    assert {name: entry.shape for name, entry in entries.items()} == {
        "RGB/a/w": (2, 3),
        "RGB/a/b": (2,),
        "global_step": (),
    }
    arrays = floats(real)
    assert arrays["RGB/a/w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["RGB/a/b"].tolist() == [0.5, -1]
    with pytest.raises(MissingData, match="'global_step' is no float32 tensor"):
        tf_bundle.read_tensors(real, entries)


def test_what_the_tests_write_is_what_tensorflow_writes(real: Path, tmp_path: Path) -> None:
    arrays = {"RGB/a/w": np.arange(6.0).reshape(2, 3), "RGB/a/b": np.array([0.5, -1])}
    ours = tf_bundle.read_index(write_bundle(tmp_path / "ours", arrays))
    theirs = tf_bundle.read_index(real)
    assert ours["RGB/a/b"] == theirs["RGB/a/b"]
    assert ours["RGB/a/w"].crc == theirs["RGB/a/w"].crc


@pytest.mark.parametrize("per_block", [1, 2, 100])
def test_all_tensors_of_all_blocks_are_read(per_block: int, tmp_path: Path) -> None:
    arrays = arrays_of()
    found = floats(write_bundle(tmp_path / "x", arrays, per_block=per_block))
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("given", ["m.ckpt", "m.ckpt.index", "m.ckpt.data-00000-of-00001", ""])
def test_a_bundle_is_found_by_any_of_its_names(given: str, real: Path) -> None:
    assert tf_bundle.find_prefix(real.parent / given) == real


def test_a_module_of_tf_hub_is_found(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "variables" / "variables", arrays_of())
    assert tf_bundle.find_prefix(tmp_path) == prefix


def test_other_files_are_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"x")
    assert tf_bundle.find_prefix(tmp_path) is None
    assert tf_bundle.find_prefix(tmp_path / "x.pt") is None
    assert tf_bundle.find_prefix(tmp_path / "y.pt") is None


def test_a_folder_of_several_is_refused_naming_them(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", arrays_of())
    write_bundle(tmp_path / "two", arrays_of())
    with pytest.raises(MissingData, match=r"several checkpoints: name one of .*one\.index.*two\.index"):
        tf_bundle.find_prefix(tmp_path)


def test_no_flipped_byte_of_the_index_gives_other_tensors(real: Path) -> None:
    whole, index, refused = tf_bundle.read_index(real), real.with_name("m.ckpt.index"), 0
    for place in range(len(REAL_INDEX)):
        index.write_bytes(REAL_INDEX)
        flip(index, place)
        try:
            assert tf_bundle.read_index(real) == whole
        except MissingData as error:
            refused += "m.ckpt.index" in str(error)
    assert refused == len(REAL_INDEX) - 13 - 36  # but for the empty meta block and the padding of the footer


def test_each_flipped_byte_of_a_tensor_is_found_and_named(real: Path) -> None:
    data = tf_bundle.data_file(real)
    for name, entry in tf_bundle.read_index(real).items():
        if entry.dtype != tf_bundle.FLOAT32:
            continue
        for place in range(entry.offset, entry.offset + entry.size):
            data.write_bytes(REAL_DATA)
            flip(data, place, bits=1)
            with pytest.raises(MissingData, match=rf"data-00000-of-00001 is damaged: '{name}' has CRC \d+, its index"):
                floats(real)


@pytest.mark.parametrize("kept", [0, 10, 47, 60, -1])
def test_a_truncated_index_is_refused_naming_it(kept: int, real: Path) -> None:
    real.with_name("m.ckpt.index").write_bytes(REAL_INDEX[:kept])
    with pytest.raises(MissingData, match=r"m\.ckpt\.index is truncated"):
        tf_bundle.read_index(real)


def test_truncated_data_is_refused_naming_the_tensor(real: Path) -> None:
    tf_bundle.data_file(real).write_bytes(REAL_DATA[:20])
    with pytest.raises(MissingData, match=r"is truncated: 'RGB/a/w' ends at byte 32 of 20"):
        floats(real)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_missing_half_is_named(suffix: str, real: Path) -> None:
    Path(f"{real}{suffix}").unlink()
    with pytest.raises(MissingData, match=rf"m\.ckpt\{suffix} cannot be read .*two files"):
        floats(real)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": 1}, "compressed with snappy"),
        ({"kind": 9}, "compressed with method 9"),
        ({"shards": 2}, "2 shards"),
    ],
)
def test_what_is_not_read_is_said(options: dict[str, int], said: str, tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "x", arrays_of(), **options)
    with pytest.raises(MissingData, match=said):
        tf_bundle.read_index(prefix)
