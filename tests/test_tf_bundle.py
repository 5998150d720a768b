"""Tests of `vfbench.weights.tf_bundle`: reading TensorFlow checkpoints without TensorFlow, and detecting damage."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import flip_byte
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
def tensorflow_bundle(tmp_path: Path) -> Path:
    (tmp_path / "m.ckpt.index").write_bytes(REAL_INDEX)
    (tmp_path / "m.ckpt.data-00000-of-00001").write_bytes(REAL_DATA)
    return tmp_path / "m.ckpt"


def read_floats(prefix: Path) -> dict[str, np.ndarray[Any, Any]]:
    entries = tf_bundle.read_index(prefix)
    return tf_bundle.read_tensors(
        prefix, {name: entry for name, entry in entries.items() if entry.dtype == tf_bundle.FLOAT32}
    )


def test_a_bundle_of_tensorflow_is_read(tensorflow_bundle: Path) -> None:
    entries = tf_bundle.read_index(tensorflow_bundle)
    assert {name: entry.shape for name, entry in entries.items()} == {
        "RGB/a/w": (2, 3),
        "RGB/a/b": (2,),
        "global_step": (),
    }
    arrays = read_floats(tensorflow_bundle)
    assert arrays["RGB/a/w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["RGB/a/b"].tolist() == [0.5, -1]
    with pytest.raises(MissingData, match="'global_step' is no float32 tensor"):
        tf_bundle.read_tensors(tensorflow_bundle, entries)


def test_bundles_of_the_tests_equal_those_of_tensorflow(tensorflow_bundle: Path, tmp_path: Path) -> None:
    arrays = {"RGB/a/w": np.arange(6.0).reshape(2, 3), "RGB/a/b": np.array([0.5, -1])}
    written = tf_bundle.read_index(write_bundle(tmp_path / "written", arrays))
    expected = tf_bundle.read_index(tensorflow_bundle)
    assert written["RGB/a/b"] == expected["RGB/a/b"]
    assert written["RGB/a/w"].crc == expected["RGB/a/w"].crc


@pytest.mark.parametrize("per_block", [1, 2, 100])
def test_all_tensors_of_all_blocks_are_read(per_block: int, tmp_path: Path) -> None:
    arrays = arrays_of()
    read = read_floats(write_bundle(tmp_path / "x", arrays, per_block=per_block))
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("name", ["m.ckpt", "m.ckpt.index", "m.ckpt.data-00000-of-00001", ""])
def test_a_bundle_is_found_by_each_of_its_file_names(name: str, tensorflow_bundle: Path) -> None:
    assert tf_bundle.find_prefix(tensorflow_bundle.parent / name) == tensorflow_bundle


def test_a_tf_hub_module_is_found(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "variables" / "variables", arrays_of())
    assert tf_bundle.find_prefix(tmp_path) == prefix


def test_other_files_are_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"x")
    assert tf_bundle.find_prefix(tmp_path) is None
    assert tf_bundle.find_prefix(tmp_path / "x.pt") is None
    assert tf_bundle.find_prefix(tmp_path / "y.pt") is None


def test_a_folder_of_several_bundles_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one", arrays_of())
    write_bundle(tmp_path / "two", arrays_of())
    with pytest.raises(MissingData, match=r"several checkpoints: name one of .*one\.index.*two\.index"):
        tf_bundle.find_prefix(tmp_path)


def test_flipped_bytes_of_the_index_are_refused_or_without_effect(tensorflow_bundle: Path) -> None:
    expected, index, refused = tf_bundle.read_index(tensorflow_bundle), tensorflow_bundle.with_name("m.ckpt.index"), 0
    for place in range(len(REAL_INDEX)):
        index.write_bytes(REAL_INDEX)
        flip_byte(index, place)
        try:
            assert tf_bundle.read_index(tensorflow_bundle) == expected
        except MissingData as error:
            refused += "m.ckpt.index" in str(error)
    assert refused == len(REAL_INDEX) - 13 - 36  # all but the empty meta block and the padding of the footer


def test_flipped_bytes_of_a_tensor_are_refused(tensorflow_bundle: Path) -> None:
    data = tf_bundle.data_file(tensorflow_bundle)
    for name, entry in tf_bundle.read_index(tensorflow_bundle).items():
        if entry.dtype != tf_bundle.FLOAT32:
            continue
        for place in range(entry.offset, entry.offset + entry.size):
            data.write_bytes(REAL_DATA)
            flip_byte(data, place, bits=1)
            with pytest.raises(MissingData, match=rf"data-00000-of-00001 is damaged: '{name}' has CRC \d+, its index"):
                read_floats(tensorflow_bundle)


@pytest.mark.parametrize("length", [0, 10, 47, 60, -1])
def test_a_truncated_index_is_refused(length: int, tensorflow_bundle: Path) -> None:
    tensorflow_bundle.with_name("m.ckpt.index").write_bytes(REAL_INDEX[:length])
    with pytest.raises(MissingData, match=r"m\.ckpt\.index is truncated"):
        tf_bundle.read_index(tensorflow_bundle)


def test_truncated_data_is_refused(tensorflow_bundle: Path) -> None:
    tf_bundle.data_file(tensorflow_bundle).write_bytes(REAL_DATA[:20])
    with pytest.raises(MissingData, match=r"is truncated: 'RGB/a/w' ends at byte 32 of 20"):
        read_floats(tensorflow_bundle)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_missing_file_of_a_bundle_is_refused(suffix: str, tensorflow_bundle: Path) -> None:
    Path(f"{tensorflow_bundle}{suffix}").unlink()
    with pytest.raises(MissingData, match=rf"m\.ckpt\{suffix} cannot be read .*two files"):
        read_floats(tensorflow_bundle)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": 1}, "compressed with snappy"),
        ({"kind": 9}, "compressed with method 9"),
        ({"shards": 2}, "2 shards"),
    ],
)
def test_unsupported_bundles_are_refused(options: dict[str, int], message: str, tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "x", arrays_of(), **options)
    with pytest.raises(MissingData, match=message):
        tf_bundle.read_index(prefix)
