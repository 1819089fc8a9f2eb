"""Every file that is read back: damaged, foreign or missing, it is found before use and named."""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import SMOKE

from player import play, recording
from player.session import Session
from player.world import load
from wm_tf import cli, storage
from wm_tf.config import get_task
from wm_tf.data.episodes import read_episode, write_episode
from wm_tf.data.latents import read_latents, write_latents
from wm_tf.errors import DamagedFile, RunFailed
from wm_tf.models import Memory
from wm_tf.serving import manifest, parcel
from wm_tf.serving.load import load_keras

CAR, DOOM = get_task("car_racing"), get_task("take_cover")
FLIPS = 3
"""Bits flipped in each file, one at a time."""
Capture = pytest.CaptureFixture[str]

READERS = {
    "config.json": "encode",
    "stages/collect-00.json": "collect",
    "stages/vision-00.json": "train-vision",
    "stages/memory-00.json": "train-memory",
    "stages/controller-00.json": "train-controller",
    "rollouts/00/episode-000002.npz": "train-vision",
    "latents/00/episode-000003.npz": "train-memory",
    "checkpoints/vision-00.npz": "encode",
    "checkpoints/memory-00.npz": "train-controller",
    "checkpoints/controller-00.npz": "export",
}
"""A file of a run and a command that reads it."""


class Refused:
    """Runs commands that must be refused, and counts those that were not."""

    def __init__(self, capsys: Capture) -> None:
        self._capsys = capsys
        self.tried = 0
        self.missed: list[str] = []

    def __call__(self, name: str, what: str, *command: str | Path, main: Any = cli.main) -> None:
        """Exit status 2, and one line that names the file."""
        self.tried += 1
        try:
            status = main([str(word) for word in command])
        except SystemExit as error:
            status = error.code
        errors = self._capsys.readouterr().err
        if status != 2 or name not in errors or "Traceback" in errors:
            self.missed.append(f"{name} {what}: {command[0]} gave {status}: {errors[-300:]}")


@pytest.fixture
def refused(capsys: Capture) -> Refused:
    return Refused(capsys)


def damages(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """The file cut at 0, 50 and 99 %, and with one bit flipped at random places."""
    for percent in (0, 50, 99):
        yield f"cut at {percent} %", data[: len(data) * percent // 100]
    for _ in range(FLIPS):
        bit = chance.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(flipped)


def reader(run: Path, name: str) -> tuple[str | Path, ...]:
    more = ("--out", run / "published") if READERS[name] == "export" else ()
    return (READERS[name], "car_racing", *SMOKE, "--run", run, *more)


@pytest.mark.parametrize("name", READERS)
def test_files_of_a_run(
    run: Path, name: str, refused: Refused, chance: random.Random, seen: Callable[[str], None]
) -> None:
    """A file of a run cut or with a bit flipped

    Found before use, named, status 2.
    """
    path = run / name
    whole = path.read_bytes()
    others = {other: (run / other).read_bytes() for other in READERS if other != name}
    for what, data in damages(whole, chance):
        path.write_bytes(data)
        refused(path.name, what, *reader(run, name))
        assert {other: (run / other).read_bytes() for other in others} == others
    path.write_bytes(whole)
    assert cli.main([str(word) for word in reader(run, name)]) == 0
    assert refused.missed == []
    seen(f"{name}: {refused.tried} of {refused.tried} found by {READERS[name]}, named, status 2")


def foreign(run: Path) -> dict[str, list[tuple[str, Callable[[Path], None]]]]:
    """Files that are whole but of another task or a later format version."""

    def changed_json(**changes: Any) -> Callable[[Path], None]:
        return lambda path: storage.write_json(path, {**storage.read_json(path), **changes})

    def changed_npz(**changes: Any) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            arrays, metadata = storage.read_npz(path)
            storage.write_npz(path, arrays, {**metadata, **changes})

        return change

    def doom_episode(path: Path) -> None:
        episode = read_episode(path, CAR)
        actions = episode.actions[:, :1]
        write_episode(path, dataclasses.replace(episode, actions=actions), DOOM)

    def doom_latents(path: Path) -> None:
        write_latents(path, read_latents(path, CAR), DOOM)

    def doom_checkpoint(path: Path) -> None:
        memory = Memory(DOOM.latent_size, DOOM.action_size, DOOM.hidden_size)
        weights = {f"weight_{i:03d}": array for i, array in enumerate(memory.get_weights())}
        metadata = {**storage.read_npz(path)[1], "task": "take_cover"}
        storage.write_npz(path, weights, metadata)

    def doom_evolution(path: Path) -> None:
        arrays, metadata = storage.read_npz(path)
        facts = {**metadata["facts"], "task": "take_cover"}
        storage.write_npz(path, arrays, {**metadata, "facts": facts})

    version = "of format version 99"
    task = "of take_cover"
    records = [(version, changed_json(format_version=99)), (task, changed_json(task="take_cover"))]
    return {
        "config.json": records,
        **{name: records for name in READERS if name.startswith("stages")},
        "rollouts/00/episode-000002.npz": [
            (version, changed_npz(format_version=99)), (task, doom_episode)
        ],
        "latents/00/episode-000003.npz": [
            (version, changed_npz(format_version=99)), (task, doom_latents)
        ],
        "checkpoints/vision-00.npz": [
            (version, changed_npz(format_version=99)), (task, doom_checkpoint)
        ],
        "checkpoints/memory-00.npz": [
            (version, changed_npz(format_version=99)), (task, doom_checkpoint)
        ],
        "checkpoints/controller-00.npz": [
            (version, changed_npz(format_version=99)), (task, doom_evolution)
        ],
    }  # fmt: skip


def test_foreign_files_of_a_run(run: Path, refused: Refused, seen: Callable[[str], None]) -> None:
    """Files of a run of another task or format version

    Found before use, named, status 2.
    """
    for name, changes in foreign(run).items():
        path = run / name
        whole = path.read_bytes()
        for what, change in changes:
            change(path)
            more = ("--epochs", "2") if READERS[name] == "train-vision" else ()
            refused(path.name, what, *reader(run, name), *more)
            path.write_bytes(whole)
    assert refused.missed == []
    seen(f"{refused.tried} of {refused.tried} found, named, status 2")


def evaluation(models: Path) -> tuple[str | Path, ...]:
    return ("evaluate", "car_racing", "--env", "dream", "--episodes", "1", "--models", models)


def files_of(models: Path) -> list[Path]:
    return sorted(path for path in (models / "car_racing").rglob("*") if path.is_file())


def test_files_of_models(
    run: Path, refused: Refused, chance: random.Random, seen: Callable[[str], None]
) -> None:
    """Files of SavedModels, manifest included: cut, with a bit flipped, missing

    Found before use, named, status 2.
    """
    models = run / "exports"
    paths = files_of(models)
    for path in paths:
        whole = path.read_bytes()
        for what, data in damages(whole, chance):
            path.write_bytes(data)
            refused(path.name, what, *evaluation(models))
        path.unlink()
        refused(path.name, "missing", *evaluation(models))
        path.write_bytes(whole)
    assert cli.main([str(word) for word in evaluation(models)]) == 0
    assert refused.missed == []
    seen(f"{len(paths)} files, {refused.tried} of {refused.tried} found, named, status 2")


def player(models: Path, *arguments: str | Path) -> tuple[str | Path, ...]:
    return ("car_racing", "--headless", "--steps", "1", "--models", models, *arguments)


def test_foreign_models(run: Path, refused: Refused, seen: Callable[[str], None]) -> None:
    """SavedModels of another task or version, without a shard, without a signature

    Found before use, named, status 2.
    """
    models = run / "exports"
    folder = models / "car_racing"
    path = folder / manifest.FILE_NAME
    whole = path.read_bytes()
    for changes in ({"task": "take_cover"}, {"format_version": 99}):
        storage.write_json(path, {**storage.read_json(path), **changes})
        for command, main in ((evaluation(models), cli.main), (player(models), play.main)):
            refused(path.name, str(changes), *command, main=main)
        path.write_bytes(whole)
    shard = folder / "memory" / "1" / "variables" / "variables.data-00000-of-00001"
    kept = shard.read_bytes()
    shard.unlink()
    for command, main in (
        (evaluation(models), cli.main), (player(models), play.main), (("verify", models), cli.main)
    ):  # fmt: skip
        refused(shard.name if command[0] != "verify" else "finding", "", *command, main=main)
    shard.write_bytes(kept)
    for model, signature in (("memory", b"dream"), ("vision", b"decode"), ("controller", b"act")):
        graph = folder / model / "1" / "saved_model.pb"
        held = graph.read_bytes()
        _remove_signature(graph, signature.decode())
        content = storage.read_json(path)
        storage.write_json(path, {**content, "files": manifest.checksums(folder)})
        for command, main in ((evaluation(models), cli.main), (player(models), play.main)):
            refused(f"signature '{signature.decode()}' is missing", model, *command, main=main)
        graph.write_bytes(held)
        path.write_bytes(whole)
    assert refused.missed == []
    seen(
        f"{refused.tried} of {refused.tried} found, named, status 2, by evaluate and the player "
        "(a signature is missed though every checksum is right)"
    )


def _remove_signature(path: Path, name: str) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString(path.read_bytes())
    del model.meta_graphs[0].signature_def[name]
    path.write_bytes(model.SerializeToString())


def test_recordings(
    run: Path,
    tmp_path: Path,
    refused: Refused,
    chance: random.Random,
    seen: Callable[[str], None],
) -> None:
    """Recordings of the player: cut, with a bit flipped, of another task, version or models

    Found before use, named, status 2.
    """
    models = run / "exports"
    world = load(models, "car_racing")
    session = Session(world, seed=7)
    for _ in range(20):
        session.tick()
    path = tmp_path / "drive.jsonl"

    def record(task: str = "car_racing", digest: str = world.digest) -> bytes:
        recording.write(path, recording.of(session.history.moments, task, digest))
        return path.read_bytes()

    whole = record()
    version = _other_version(whole)
    foreigners = [
        ("another task", record(task="take_cover")), ("other models", record(digest="0" * 64)),
        ("another version", version), *damages(whole, chance), *damages(whole, chance),
    ]  # fmt: skip
    for what, data in foreigners:
        path.write_bytes(data)
        refused(path.name, what, *player(models, "--actions", path), main=play.main)
    path.write_bytes(whole)
    assert play.main([str(word) for word in player(models, "--actions", path)]) == 0
    assert refused.missed == []
    seen(f"{refused.tried} of {refused.tried} found, named, status 2")


def _other_version(data: bytes) -> bytes:
    import hashlib
    import json

    *lines, last = data.replace(b'{"recording": 1', b'{"recording": 99', 1).splitlines(True)
    end = json.loads(last)
    end["end"]["sha256"] = hashlib.sha256(b"".join(lines)).hexdigest()
    return b"".join([*lines, json.dumps(end).encode() + b"\n"])


def test_a_file_of_bindings(
    run: Path, tmp_path: Path, refused: Refused, seen: Callable[[str], None]
) -> None:
    """The player's TOML of keys, which a person writes: what cannot be understood

    Named, status 2.
    """
    path = tmp_path / "keys.toml"
    wrong = [b'gas = ["up', b"gas = 3", b'fly = ["f"]', b'gas = ["no such key"]', b"\xff\xfe"]
    for text in wrong:
        path.write_bytes(text)
        refused(path.name, repr(text), *player(run / "exports", "--keys", path), main=play.main)
    assert refused.missed == []
    seen(f"{refused.tried} of {refused.tried} named, status 2 (it has no checksum)")


def test_a_score(
    run: Path, tmp_path: Path, refused: Refused, chance: random.Random, seen: Callable[[str], None]
) -> None:
    """A file of evaluate --json, which renew reads: damaged, of another task or version

    Found before use, named, status 2.
    """
    models = tmp_path / "models"
    shutil.copytree(run / "exports", models)
    path = tmp_path / "score.json"
    assert cli.main([str(word) for word in (*evaluation(models), "--json", path)]) == 0
    whole = path.read_bytes()
    for what, data in damages(whole, chance):
        path.write_bytes(data)
        refused(path.name, what, "renew", models, "--scores", path)
    for changes in ({"task": "take_cover"}, {"format_version": 99}):
        path.write_bytes(whole)
        storage.write_json(path, {**storage.read_json(path), **changes})
        refused(path.name, str(changes), "renew", models, "--scores", path)
    assert refused.missed == []
    seen(f"{refused.tried} of {refused.tried} found, named, status 2")


def test_a_data_set(
    run: Path, tmp_path: Path, refused: Refused, chance: random.Random, seen: Callable[[str], None]
) -> None:
    """Files of export-data, which import-data reads: damaged, of another task or version

    Found before use, named, status 2.
    """
    pytest.importorskip("minari")
    data = tmp_path / "drives-v0"
    assert cli.main(["export-data", "car_racing", "--run", str(run), "--out", str(data)]) == 0
    command = ("import-data", "car_racing", "--data", data, "--run", tmp_path / "new")
    paths = [path for path in data.rglob("*") if path.is_file()]
    for path in paths:
        whole = path.read_bytes()
        for what, damaged in damages(whole, chance):
            path.write_bytes(damaged)
            refused(path.name, what, *command)
        path.write_bytes(whole)
    path = data / manifest.FILE_NAME
    for changes in ({"task": "take_cover"}, {"format_version": 99}):
        whole = path.read_bytes()
        storage.write_json(path, {**storage.read_json(path), **changes})
        refused(path.name, str(changes), *command)
        path.write_bytes(whole)
    assert not list((tmp_path / "new").rglob("*.npz"))
    assert cli.main([str(word) for word in command]) == 0
    assert refused.missed == []
    seen(f"{len(paths)} files, {refused.tried} of {refused.tried} found, named, status 2")


def test_models_that_came_to_another_machine(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: random.Random,
    seen: Callable[[str], None],
) -> None:
    """Models that came to another machine as a parcel: damaged where they wait there

    Found and named before a worker uses them.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    checksum = manifest.checksum(run / "exports" / "car_racing")
    parcel.unpack(parcel.pack(run / "exports", "car_racing"), checksum)
    shutil.rmtree(run)
    (folder,) = tmp_path.glob("wm_tf_models_*/*/car_racing")
    tried = 0
    for path in (folder / name for name in manifest.checksums(folder)):
        whole = path.read_bytes()
        for what, data in damages(whole, chance):
            path.write_bytes(data)
            there = parcel.find(run / "exports", "car_racing", checksum)
            with pytest.raises(DamagedFile, match=re.escape(f"{path}: ")):
                load_keras(there, "car_racing")
                pytest.fail(f"{path} {what}")
            tried += 1
        path.write_bytes(whole)
    (folder / manifest.FILE_NAME).write_bytes(b"{}")
    with pytest.raises(RunFailed, match="other models than those that were meant, or none"):
        parcel.find(run / "exports", "car_racing", checksum)
    seen(f"{tried + 1} of {tried + 1} found and named")
