"""The models behind the model server: real requests over HTTP, answered as by the local models."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest

from wm_tf.config import get_task
from wm_tf.errors import UserError
from wm_tf.serving import contract
from wm_tf.serving.load import Models

if importlib.util.find_spec("kserve") is None:
    pytest.skip("the extra 'serve' is not installed", allow_module_level=True)

TASK = get_task("car_racing")
DATATYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8"}
SIGNATURES = [(model, name) for model, names in contract.SIGNATURES.items() for name in names]
README = Path(__file__).parents[2] / "README.md"
CLIENT = README.parent / "examples" / "dream_over_http.py"

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def server(saved_models: Path) -> Iterator[str]:
    """The address of a server of `saved_models`; Ctrl-C must end it."""
    command = [sys.executable, "-m", "wm_tf", "serve", "--models", str(saved_models), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert re.fullmatch(r"serving car_racing on http://127\.0\.0\.1:\d+\n", line)
            yield line.split()[-1]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()


def ask(address: str, path: str, content: Any = None) -> tuple[int, Any]:
    """(status, what the answer holds) of a GET or, where there is content, of a POST."""
    data = content if content is None or isinstance(content, bytes) else json.dumps(content)
    body = data.encode() if isinstance(data, str) else data
    request = urllib.request.Request(address + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def lists(arrays: Arrays) -> dict[str, Any]:
    return {name: array.tolist() for name, array in arrays.items()}


def tensors(arrays: Arrays) -> list[dict[str, Any]]:
    """Inputs as V2 takes them, in row-major order."""
    return [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": DATATYPES[array.dtype.name],
            "data": array.ravel().tolist(),
        }
        for name, array in arrays.items()
    ]


def example(model: str, name: str, rows: int = 1) -> Arrays:
    signature = contract.SIGNATURES[model][name]
    return contract.example_inputs(TASK, signature, rows, np.random.default_rng(rows))


def check(outputs: dict[str, Any], expected: Arrays) -> None:
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        actual = np.asarray(outputs[name], np.float32)
        assert actual.shape == array.shape
        np.testing.assert_allclose(actual, array, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("model", "name"), SIGNATURES)
def test_every_signature_answers_as_the_local_model(
    server: str, models: Models, model: str, name: str, rows: int
) -> None:
    inputs = example(model, name, rows)
    expected = models.calls[model, name](**inputs)

    path = f"/v1/models/car_racing_{model}:predict"
    status, answer = ask(server, path, {"signature_name": name, "inputs": lists(inputs)})
    assert status == 200, answer
    outputs = answer["outputs"]
    check(outputs if len(expected) > 1 else dict.fromkeys(expected, outputs), expected)

    path = f"/v2/models/car_racing_{model}_{name}/infer"
    status, answer = ask(server, path, {"id": "7", "inputs": tensors(inputs)})
    assert status == 200, answer
    assert answer["id"] == "7"
    check(
        {
            tensor["name"]: np.reshape(tensor["data"], tensor["shape"])
            for tensor in answer["outputs"]
            if tensor["datatype"] == "FP32"
        },
        expected,
    )


def test_rows_are_answered_by_rows(server: str, models: Models) -> None:
    inputs = example("memory", "step", 3)
    rows = [{name: array[row].tolist() for name, array in inputs.items()} for row in range(3)]
    status, answer = ask(server, "/v1/models/car_racing_memory:predict", {"instances": rows})
    assert status == 200, answer
    expected = models.calls["memory", "step"](**inputs)
    predictions = answer["predictions"]
    check({name: [row[name] for row in predictions] for name in predictions[0]}, expected)

    frames = {"instances": example("vision", "encode", 2)["frame"].tolist()}  # without its name
    status, answer = ask(server, "/v1/models/car_racing_vision:predict", frames)
    assert status == 200, answer
    assert len(answer["predictions"]) == 2


def test_the_server_lists_its_models(server: str) -> None:
    names = {f"car_racing_{model}_{name}" for model, name in SIGNATURES}
    names |= {f"car_racing_{model}" for model in contract.SIGNATURES}
    for version in (1, 2):
        status, answer = ask(server, f"/v{version}/models")
        assert (status, set(answer["models"])) == (200, names)
    status, answer = ask(server, "/v2/models/car_racing_memory_dream")
    assert status == 200
    shapes = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in answer["inputs"]}
    assert shapes["latent"] == ("FP32", [-1, 32])
    assert shapes["temperature"] == ("FP32", [])
    assert shapes["seed"] == ("INT32", [2])
    assert [tensor["name"] for tensor in answer["outputs"]] == [
        "latent", "reward", "done_probability", "h", "c",
    ]  # fmt: skip


LATENT = [[0.5] * 32]
FRAME = np.zeros((1, 64, 64, 3), int)
DREAM = lists(example("memory", "dream"))


@pytest.mark.parametrize(
    ("model", "request_", "reason"),
    [
        ("vision", {"signature_name": "decode", "inputs": {"z": LATENT}}, "expected latent, got z"),
        ("vision", {"signature_name": "dream", "inputs": LATENT}, "expected encode, decode"),
        ("vision", {"signature_name": "decode", "inputs": [[0.5] * 31]}, "got [1, 31]"),
        ("vision", {"signature_name": "decode", "inputs": [[0.5], [0.5, 1]]}, "equal lengths"),
        ("vision", {"signature_name": "decode", "inputs": [["0.5"] * 32]}, "float32 values"),
        ("vision", {"signature_name": "decode", "inputs": [[1e39] * 32]}, "float32 values"),
        ("vision", {"signature_name": "decode", "inputs": []}, "float32 values"),
        ("vision", {"inputs": (FRAME + 0.5).tolist()}, "uint8 values from 0 to 255"),
        ("vision", {"inputs": (FRAME + 256).tolist()}, "uint8 values from 0 to 255"),
        ("vision", {"instances": 3}, "list of at least one row"),
        ("vision", {"inputs": LATENT, "instances": LATENT}, "either"),
        ("vision", [LATENT], "either"),
        ("vision", b"{", "unexpected end of data"),
        ("memory", {"signature_name": "dream", "inputs": {**DREAM, "seed": [1]}}, "got [1]"),
        ("memory", {"signature_name": "dream", "inputs": {**DREAM, "seed": [1, 2**31]}}, "int32"),
        ("memory", {"signature_name": "dream", "inputs": {**DREAM, "temperature": 0}}, "than 0"),
        ("memory", {"signature_name": "dream", "inputs": {**DREAM, "h": [[0] * 256] * 2}}, "rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_refused(
    server: str, model: str, request_: Any, reason: str
) -> None:
    status, answer = ask(server, f"/v1/models/car_racing_{model}:predict", request_)
    assert (status, reason in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"name": "z"}, 400, "expected latent, got z"),
        ({"datatype": "FP64"}, 400, "expected FP32, got FP64"),
        ({"datatype": 32}, 422, "valid string"),
        ({"shape": [2, 32]}, 400, "reshape"),
        ({"shape": [32]}, 400, "got [32]"),
        ({"data": ["a"] * 32}, 400, "float32 values"),
        ({"data": None}, 422, "valid list"),
    ],
)
def test_tensors_that_cannot_be_used_are_refused(
    server: str, changes: dict[str, Any], status: int, reason: str
) -> None:
    (tensor,) = tensors({"latent": np.zeros((1, 32), np.float32)})
    path = "/v2/models/car_racing_vision_decode/infer"
    assert ask(server, path, {"inputs": [tensor]})[0] == 200
    answer = ask(server, path, {"inputs": [{**tensor, **changes}]})
    assert (answer[0], reason in json.dumps(answer[1])) == (status, True), answer


@pytest.mark.parametrize(
    "path", ["/v1/models/car_racing_motor:predict", "/v2/models/car_racing_motor/infer"]
)
def test_an_unknown_model_is_not_found(server: str, path: str) -> None:
    status, answer = ask(server, path, {"inputs": []})
    assert status == 404
    assert "car_racing_motor" in answer["error"]


def test_lists_in_lists_in_lists_are_refused(server: str) -> None:
    """With curl's content type, of which the server's framework makes nothing."""
    path = f"{server}/v1/models/car_racing_vision:predict"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(path, b"[" * 100_000, timeout=30)
    with caught.value as answer:
        assert answer.status == 400, answer.read()


@pytest.mark.parametrize("header", ["x", "-5", "7", None])
def test_tensors_in_binary_that_cannot_be_read_are_refused(server: str, header: str | None) -> None:
    """A header that tells no place in the body, or a tensor that is shorter than its shape."""
    (tensor,) = tensors({"latent": np.zeros((1, 32), np.float32)})
    described = {**tensor, "parameters": {"binary_data_size": 128}}
    del described["data"]
    text = json.dumps({"inputs": [described]}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)) if header is None else header,
    }
    assert refused(server, text + bytes(100), headers) == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [-1, 32]},
        {"shape": ["a"], "parameters": {}, "data": [0.0] * 32},
        {"name": ["z"]},
        {"datatype": "BYTES", "shape": [32]},
    ],
    ids=str,
)
def test_binary_tensors_of_a_wrong_description_are_refused(
    server: str, changes: dict[str, Any]
) -> None:
    tensor = {"name": "latent", "shape": [1, 32], "datatype": "FP32"}
    described = {**tensor, "parameters": {"binary_data_size": 128}, **changes}
    text = json.dumps({"inputs": [described]}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }
    binary = b"" if "data" in changes else b"\x01" + bytes(127)
    assert refused(server, text + binary, headers) == 400


def refused(server: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of a request that ends in an error."""
    path = f"{server}/v2/models/car_racing_vision_decode/infer"
    request = urllib.request.Request(path, body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        return answer.status


def test_no_request_takes_a_model_away(server: str) -> None:
    assert ask(server, "/v2/repository/models/car_racing_vision/unload", b"")[0] == 400
    assert ask(server, "/v2/models/car_racing_vision/ready")[0] == 200
    assert ask(server, "/v2/repository/models/car_racing_vision/load", b"")[0] == 200
    assert ask(server, "/v2/repository/models/car_racing_motor/load", b"")[0] == 404


def test_no_address_is_not_all_addresses() -> None:
    from wm_tf.serving.server import serve

    with pytest.raises(UserError, match="--host: expected an address"):
        serve("saved_models", "", 0)


@pytest.mark.slow
def test_a_port_that_is_taken_is_told_in_a_line(server: str, saved_models: Path) -> None:
    port = str(urlsplit(server).port)
    command = [sys.executable, "-m", "wm_tf", "serve", "--models", str(saved_models)]
    done = subprocess.run([*command, "--port", port], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"wm_tf: cannot listen on 127.0.0.1, port {port}: ")
    assert done.stderr.count("\n") == 1


def test_a_client_of_the_standard_library_dreams(
    server: str, models: Models, tmp_path: Path
) -> None:
    assert len(CLIENT.read_text().splitlines()) <= 40  # as the README says
    gif = tmp_path / "dream.gif"
    command = [sys.executable, "-I", "-S", str(CLIENT), server, str(gif)]  # no site-packages
    subprocess.run(command, check=True, timeout=120)
    latent, h, c = (np.zeros((1, size), np.float32) for size in (32, 256, 256))
    with PIL.Image.open(gif) as images:
        assert images.n_frames == 100  # type: ignore[attr-defined]
        for step in range(100):
            images.seek(step)
            shown = np.asarray(images.convert("RGB"), np.float32) / 255
            # Quarters of full brightness, dithered: the mean over 4x4 pixels is right.
            error = (shown - models.decode(latent)[0]).reshape(16, 4, 16, 4, 3).mean((1, 3))
            assert np.abs(error).max() < 0.08
            action = models.act(latent, h, c)
            dreamt = models.dream(latent, action, h, c, temperature=1.0, seed=(1, step))
            latent, h, c = (dreamt[name] for name in ("latent", "h", "c"))


def test_the_requests_of_the_readme_are_answered(server: str, models: Models) -> None:
    """Its lines of shell as they are, but for the server's address."""
    text = README.read_text()
    (lines,) = re.findall(r"```bash\n(server=.*?)```", text, re.DOTALL)
    script = lines.replace("http://127.0.0.1:8501", server).replace("curl ", "echo; curl -s ")
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=True)
    answers = [json.loads(line)["outputs"] for line in done.stdout.splitlines() if line]
    z, h = (np.zeros((1, size), np.float32) for size in (32, 256))
    action = np.array([[0, 0.5, 0]], np.float32)
    check(answers[0], models.calls["vision", "encode"](frame=np.zeros((1, 64, 64, 3), np.uint8)))
    check({"frame": answers[1]}, models.calls["vision", "decode"](latent=z))
    check(answers[2], models.step(z, action, h, h))
    check(answers[3], models.dream(z, action, h, h, 1.0, (1, 0)))
    check({"action": answers[4]}, models.calls["controller", "act"](latent=z, h=h, c=h))
    assert len(answers) == len(SIGNATURES)


@pytest.mark.slow
def test_eight_clients_at_once_lose_nothing(
    server: str, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds, clients = 30.0, 8
    dream = example("memory", "dream")
    requests = [
        ("/v1/models/car_racing_memory:predict",
         {"signature_name": "dream", "inputs": lists(dream)}),
        ("/v2/models/car_racing_memory_dream/infer", {"inputs": tensors(dream)}),
        ("/v1/models/car_racing_vision:predict",
         {"signature_name": "decode", "inputs": dream["latent"].tolist()}),
    ]  # fmt: skip
    expected = [ask(server, *request)[1] for request in requests]
    times: list[float] = []
    failures: list[Any] = []

    def play(client: int) -> None:
        end = time.monotonic() + seconds
        with contextlib.closing(HTTPConnection(urlsplit(server).netloc, timeout=60)) as connection:
            for turn in itertools.count(client):
                path, content = requests[turn % len(requests)]
                start = time.monotonic()
                if start > end:
                    return
                headers = {"content-type": "application/json"}
                connection.request("POST", path, json.dumps(content), headers)
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                times.append(time.monotonic() - start)
                wanted = expected[turn % len(requests)]
                if reply.status != 200 or answer["outputs"] != wanted["outputs"]:
                    failures.append((reply.status, answer))

    threads = [threading.Thread(target=play, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds + 60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    middle, slowest = np.percentile(times, [50, 99]) * 1000
    with capsys.disabled():
        print(
            f"\n{clients} clients for {seconds:.0f} s: {len(times)} requests, "
            f"{len(times) / seconds:.0f} a second, p50 {middle:.1f} ms, p99 {slowest:.1f} ms"
        )
    assert len(times) > 100 * clients
