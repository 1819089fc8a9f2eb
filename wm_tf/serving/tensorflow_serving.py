"""What TensorFlow Serving reads beside the SavedModels: which models there are, and warm-up.

    saved_models/models.config                        all models of all tasks, as under /models
    TASK/MODEL/1/assets.extra/tf_serving_warmup_requests   a request for each signature

The warm-up file is a TFRecord of `tensorflow.serving.PredictionLog` messages. TensorFlow itself
does not know these messages and only needs to read what is written here, so that they are put
together by hand, field by field. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wm_tf import storage
from wm_tf.config import TASKS
from wm_tf.serving import contract, golden

CONFIG_NAME = "models.config"
WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"
MOUNT = "/models"
"""Where the server sees the folder that holds the tasks' folders."""

_TYPES = {"float32": 1, "int32": 3, "uint8": 4}  # tensorflow.DataType
_CRC32C = 0x82F63B78  # Castagnoli's polynomial, its bits in reverse


def served_name(task: str, model: str) -> str:
    """The name by which a SavedModel is asked for."""
    return f"{task}_{model}"


def write_config(models: Path) -> None:
    """Writes the server's configuration of all SavedModels in a folder such as saved_models."""
    entries = [
        f'  config {{ name: "{served_name(task, model)}" base_path: "{MOUNT}/{task}/{model}" '
        'model_platform: "tensorflow" }\n'
        for task in TASKS
        for model in contract.SIGNATURES
        if (models / task / contract.model_file(model)).exists()
    ]
    text = "model_config_list {\n" + "".join(entries) + "}\n"
    storage.write_bytes(models / CONFIG_NAME, text.encode())


def write_warmup(folder: Path, task: str) -> None:
    """Writes requests with the golden inputs for each SavedModel of a task's folder."""
    for model, signatures in contract.SIGNATURES.items():
        if not (folder / contract.model_file(model)).exists():
            continue
        requests = [
            prediction_log(served_name(task, model), name, golden.read(folder, model, name)[0])
            for name in signatures
        ]
        path = folder / model / contract.VERSION / WARMUP_PATH
        storage.write_bytes(path, b"".join(map(tf_record, requests)))


def prediction_log(model: str, signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A `PredictionLog` of a `PredictRequest`."""
    model_spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name, array in inputs.items():
        request += _field(2, _field(1, name.encode()) + _field(2, _tensor(array)))
    return _field(6, _field(1, request))  # predict_log, its request


def tf_record(data: bytes) -> bytes:
    """One record of a TFRecord file: the length and the data, each with its masked CRC."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _tensor(array: np.ndarray) -> bytes:
    """A `TensorProto`."""
    shape = b"".join(_field(2, b"\x08" + _varint(size)) for size in array.shape)
    dtype = b"\x08" + _varint(_TYPES[array.dtype.name])
    return dtype + _field(2, shape) + _field(4, array.astype(array.dtype, order="C").tobytes())


def _field(number: int, data: bytes) -> bytes:
    """A field that holds bytes, a text or a message."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_CRC32C if value & 1 else 0)
    return value


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]
