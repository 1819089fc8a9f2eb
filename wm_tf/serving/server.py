"""The models behind a model server: KServe's SDK, which speaks two protocols over HTTP.

* V1, TensorFlow Serving's predict API. Its models are those of `wm_tf.serving.tensorflow_serving`
  (``car_racing_memory``), so that the same requests work here and there:

      POST /v1/models/car_racing_memory:predict {"signature_name": "dream", "inputs": {...}}

* V2, the Open Inference Protocol, which knows no signatures: there is one model for each of them.

      POST /v2/models/car_racing_memory_dream/infer {"inputs": [{"name": "latent", ...}, ...]}

A request that cannot be used is answered with status 400 (or 422, 404) and what was wrong.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kserve
import numpy as np
from kserve.constants.constants import FASTAPI_APP_IMPORT_STRING
from kserve.errors import InferenceError, InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

from wm_tf.config import Task
from wm_tf.errors import UserError
from wm_tf.serving import contract
from wm_tf.serving.load import Call, Models, load
from wm_tf.serving.tensorflow_serving import served_name
from wm_tf.serving.verify import tasks_in

_DATATYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8"}
"""V2's names of the contract's types."""

_UNREADABLE = (
    ValueError, TypeError, AttributeError, LookupError, InferenceError, struct.error
)  # fmt: skip
"""What tensors in binary raise that are not what their description says."""

Outputs = dict[str, np.ndarray]


def serve(models: Path | str, host: str, port: int) -> None:
    """Serves every task's models in a folder until Ctrl-C.

    Args:
      models: see `manifest.find_models`.
      host: address to listen on; 127.0.0.1 is reached from this machine alone.
      port: 0 takes one that is free. The line that is printed once requests are accepted tells it.

    Raises:
      UserError, DamagedFile: there are no sound models, or the address cannot be listened on.
    """
    logging.getLogger("kserve").addFilter(_is_not_the_clients_fault)
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")  # by the web framework
    tasks = tasks_in(models)
    with _listen(host, port) as listener:  # first, because loading takes seconds
        registry = _Registry()
        for task in tasks:
            for model in _served_models(load(models, task)):
                registry.update(model)
        server = RESTServer(
            FASTAPI_APP_IMPORT_STRING, _Requests(registry), _Repository(registry), port
        )
        address, port = listener.getsockname()[:2]
        print(f"serving {', '.join(tasks)} on http://{address}:{port}", flush=True)
        server.run(sockets=[listener])


@dataclass(frozen=True)
class Function:
    """A signature, called with JSON's values."""

    task: Task
    signature: contract.Signature
    call: Call

    def __call__(self, values: Mapping[str, Any]) -> Outputs:
        """Values by input name to arrays by output name; ValueError says what cannot be used."""
        inputs = self.signature.inputs
        if values.keys() != inputs.keys():
            raise ValueError(f"inputs: expected {_names(inputs)}, got {_names(values)}")
        arrays = {name: _array(name, values[name], kind.dtype) for name, kind in inputs.items()}
        outputs = self.call(**arrays)
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: not finite for these inputs")
        return outputs

    def describe(self, tensors: Mapping[str, contract.TensorType]) -> list[dict[str, Any]]:
        """Inputs or outputs as V2's metadata, where -1 stands for any number of rows."""
        return [
            {
                "name": name,
                "datatype": _DATATYPES[kind.dtype],
                "shape": [-1 if size is None else size for size in kind.resolved(self.task)],
            }
            for name, kind in tensors.items()
        ]


class ServedModel(kserve.Model):
    """What the server calls: the signatures of a SavedModel, or a single one.

    Args:
      name: in the URL.
      functions: by signature. V1 chooses by name, V2 always takes ``serving_default``.
    """

    def __init__(self, name: str, functions: Mapping[str, Function]) -> None:
        super().__init__(name)
        self.ready = True
        self._functions = functions
        self._default = functions[contract.DEFAULT_SIGNATURE]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        answer = self._infer if isinstance(payload, kserve.InferRequest) else self._predict
        try:
            return await asyncio.to_thread(answer, payload)
        except (ValueError, RecursionError) as error:  # the latter of lists in lists in lists
            raise InvalidInput(str(error)) from error

    def get_input_types(self) -> list[dict[str, Any]]:
        return self._default.describe(self._default.signature.inputs)

    def get_output_types(self) -> list[dict[str, Any]]:
        return self._default.describe(self._default.signature.outputs)

    def _predict(self, payload: Any) -> dict[str, Any]:
        """V1: ``inputs`` holds a value for each input, ``instances`` one object for each row."""
        request = json.loads(payload) if isinstance(payload, bytes) else payload
        if not isinstance(request, dict) or ("inputs" in request) == ("instances" in request):
            raise ValueError('request: expected an object with either "inputs" or "instances"')
        name = str(request.get("signature_name", contract.DEFAULT_SIGNATURE))
        if name not in self._functions:
            raise ValueError(f"signature_name: expected {_names(self._functions)}, got {name}")
        function = self._functions[name]
        by_rows = "instances" in request
        values = _columns(request["instances"]) if by_rows else request["inputs"]
        if not isinstance(values, dict):  # an only input needs no name
            values = {next(iter(function.signature.inputs)): values}
        outputs: Any = function(values)
        if len(outputs) == 1:
            (outputs,) = outputs.values()
        elif by_rows:
            outputs = [
                dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            ]
        return {"predictions" if by_rows else "outputs": outputs}

    def _infer(self, request: kserve.InferRequest) -> kserve.InferResponse:
        """V2: tensors with their shapes and types."""
        try:  # nobody has looked at the types in a request with tensors in binary
            values = self._tensors(request)
            wanted = {
                "use_binary_outputs": request.use_binary_outputs,
                "requested_outputs": request.request_outputs,
            }
        except (TypeError, AttributeError) as error:
            raise ValueError(f"request: cannot be read ({error})") from error
        outputs = [
            kserve.InferOutput(name, list(array.shape), _DATATYPES[array.dtype.name], array)
            for name, array in self._default(values).items()
        ]
        return kserve.InferResponse(request.id or uuid.uuid4().hex, self.name, outputs, **wanted)

    def _tensors(self, request: kserve.InferRequest) -> dict[str, np.ndarray]:
        """A V2 request's tensors by their names."""
        values = {}
        for tensor in request.inputs:
            kind = self._default.signature.inputs.get(tensor.name)
            if kind is not None and tensor.datatype != _DATATYPES[kind.dtype]:
                wanted = _DATATYPES[kind.dtype]
                raise ValueError(f"{tensor.name}: expected {wanted}, got {tensor.datatype}")
            values[tensor.name] = np.reshape(_numbers(tensor.name, tensor.data), tensor.shape)
        return values


class _Registry(kserve.ModelRepository):
    """The models, which no request can take away."""

    def unload(self, name: str) -> None:
        raise InvalidInput(f"{name}: models are not unloaded")


class _Requests(DataPlane):
    """Refuses tensors in binary that are not what their description says."""

    def decode_inference_request(
        self, body: Any, headers: dict[str, str], model_name: str
    ) -> kserve.InferRequest:
        try:
            return super().decode_inference_request(body, headers, model_name)
        except _UNREADABLE as error:
            raise InvalidInput(f"request: cannot be read ({error})") from error


class _Repository(ModelRepositoryExtension):
    """Loads nothing: what there is has been loaded."""

    async def load(self, model_name: str) -> None:
        if self._model_registry.get_model(model_name) is None:
            raise ModelNotFound(model_name)


def _served_models(models: Models) -> list[ServedModel]:
    """A model for each SavedModel, with all its signatures, and one for each signature."""
    served = []
    for name, signatures in contract.SIGNATURES.items():
        functions = {
            key: Function(models.task, signature, models.calls[name, key])
            for key, signature in signatures.items()
            if (name, key) in models.calls
        }
        if not functions:  # there is no controller
            continue
        common = served_name(models.task.name, name)
        default = {contract.DEFAULT_SIGNATURE: functions[contract.default_signature(name)]}
        served.append(ServedModel(common, {**functions, **default}))
        served += [
            ServedModel(f"{common}_{key}", {key: function, contract.DEFAULT_SIGNATURE: function})
            for key, function in functions.items()
        ]
    return served


def _columns(rows: Any) -> Any:
    """Rows of named values to lists of values by name; rows of an only input as they are."""
    if not isinstance(rows, list) or not rows:
        raise ValueError("instances: expected a list of at least one row")
    if not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return rows
    return {name: [row[name] for row in rows] for name in rows[0]}


def _array(name: str, values: Any, dtype: str) -> np.ndarray:
    """JSON's numbers as an array of a type that holds them."""
    array = _numbers(name, values)
    limits = np.finfo(dtype) if dtype == "float32" else np.iinfo(dtype)
    fits = array.dtype.kind in ("iuf" if dtype == "float32" else "iu")
    if not fits or array.size == 0 or array.min() < limits.min or array.max() > limits.max:
        raise ValueError(f"{name}: expected {dtype} values from {limits.min} to {limits.max}")
    return array.astype(dtype)


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name}: expected lists of equal lengths") from None


def _names(mapping: Mapping[str, Any]) -> str:
    return ", ".join(mapping) or "none"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that queues requests from now on."""
    if not host:  # which would be all addresses of this machine
        raise UserError("--host: expected an address to listen on, got ''")
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError, TypeError, UnicodeError) as error:
        raise UserError(f"cannot listen on {host}, port {port}: {error}") from None


def _is_not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Keeps what a client is told out of the log, where it would stand with a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, InvalidInput | ModelNotFound | NotImplementedError)
