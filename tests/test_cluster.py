"""Chunks on other machines: the same outcomes and episodes, and models that come by content."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from wm_tf import agent, cluster
from wm_tf.cluster import RemoteExecutor, dask
from wm_tf.collect import collect
from wm_tf.config import CollectConfig, get_task
from wm_tf.data.episodes import episode_paths
from wm_tf.errors import RunFailed, UserError
from wm_tf.execution import SerialExecutor, map_chunks
from wm_tf.serving import manifest, parcel

TASK = dataclasses.replace(get_task("car_racing"), max_steps=10)
EPISODES = CollectConfig(episodes=5)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, as of another machine; ends what was started there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    for executor in cluster._started.values():
        executor.kill()
    cluster._started.clear()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in episode_paths(folder)}


def test_a_dask_cluster_gives_the_same_episodes(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra distributed is missing")
    collect(SerialExecutor(), TASK, tmp_path / "here", EPISODES, seed=1)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as workers,
        dask(workers.scheduler_address, timeout=60) as executor,
    ):
        assert executor.workers == 2
        outcomes = collect(executor, TASK, tmp_path / "there", EPISODES, seed=1)
    assert len(outcomes) == 5
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def models_at(saved_models: Path) -> agent.ModelsAt:
    return agent.ModelsAt(saved_models, manifest.checksum(saved_models / "car_racing"))


def test_models_come_to_a_worker_that_has_no_such_folder(
    saved_models: Path, tmp_path: Path, elsewhere: Path
) -> None:
    """The folder that the chunk names is gone, and then it is not."""
    gone = tmp_path / "gone"
    shutil.copytree(saved_models, gone)
    models = models_at(gone)
    packed = parcel.pack(gone, "car_racing")
    shutil.rmtree(gone)
    work = agent.chunks(
        [agent.Rollout(1, (2, 0, index)) for index in range(2)], 2,
        task="car_racing", max_steps=4, models=models,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as there:
        plain = RemoteExecutor(there, timeout=120)
        with pytest.raises(RunFailed, match="gone/car_racing: other models than those"):
            map_chunks(plain, agent.play, work, attempts=1)
        sharing = RemoteExecutor(there, timeout=120, share=lambda models, task: packed)
        outcomes = map_chunks(sharing, agent.play, work)
        known = [dataclasses.replace(chunk, models=models_at(saved_models)) for chunk in work]
        assert outcomes == map_chunks(plain, agent.play, known)
    (store,) = elsewhere.glob("wm_tf_models_*")
    assert [path.name for path in store.iterdir()] == [models.checksum]


def test_several_models_come_to_the_cluster_once(saved_models: Path) -> None:
    class Client:
        scattered = 0

        def scatter(self, _: object) -> SimpleNamespace:
            self.scattered += 1
            return SimpleNamespace(status="finished")

    client = Client()
    share = cluster._scatter(client)  # type: ignore[arg-type]
    members = [agent.ModelsAt(saved_models, name) for name in "ABC"]
    first = [share(models, "car_racing") for models in members]
    for _ in range(3):
        assert [share(models, "car_racing") for models in members] == first
    assert client.scattered == 3
    first[0].status = "lost"  # with the workers that had it
    assert share(members[0], "car_racing") is not first[0]
    assert client.scattered == 4
    for index in range(cluster.HELD_MODELS):  # those of later generations
        share(agent.ModelsAt(saved_models, str(index)), "car_racing")
    share(members[1], "car_racing")
    assert client.scattered == 5 + cluster.HELD_MODELS


def test_models_are_unpacked_once_and_found_by_their_content(
    saved_models: Path, elsewhere: Path
) -> None:
    models = models_at(saved_models)
    folder = parcel.find(saved_models, "car_racing", models.checksum)
    assert folder == saved_models
    parcel.unpack(parcel.pack(saved_models, "car_racing"), models.checksum)
    there = parcel.find(elsewhere / "nowhere", "car_racing", models.checksum)
    assert manifest.read_verified(there / "car_racing", "car_racing")
    made = there.stat().st_mtime_ns
    parcel.unpack(b"not looked at", models.checksum)
    assert there.stat().st_mtime_ns == made
    with pytest.raises(RunFailed, match="other models than those that were meant, or none"):
        parcel.find(saved_models, "car_racing", "0" * 64)


def test_models_that_are_not_whole_are_unpacked_again(saved_models: Path) -> None:
    """Folders for temporary files are tidied up, file by file."""
    checksum = models_at(saved_models).checksum
    packed = parcel.pack(saved_models, "car_racing")
    parcel.unpack(packed, checksum)
    folder = parcel.find(Path("nowhere"), "car_racing", checksum) / "car_racing"
    for name in ("golden.npz", "vision/1/saved_model.pb", manifest.FILE_NAME):
        (folder / name).unlink()
        parcel.unpack(packed, checksum)
        assert manifest.read_verified(folder, "car_racing")
    assert list(folder.parents[1].iterdir()) == [folder.parent]  # nothing else is left behind


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("wrong", ["mode", "link"])
def test_a_folder_that_others_can_enter_is_named(
    saved_models: Path, tmp_path: Path, elsewhere: Path, wrong: str
) -> None:
    checksum = models_at(saved_models).checksum
    packed = parcel.pack(saved_models, "car_racing")
    parcel.unpack(packed, checksum)
    (store,) = elsewhere.glob("wm_tf_models_*")
    if wrong == "mode":
        store.chmod(0o770)
    else:
        store.rename(tmp_path / "theirs")
        store.symlink_to(tmp_path / "theirs")
    with pytest.raises(RunFailed, match=f"{store}: expected a folder of this user alone"):
        parcel.unpack(packed, checksum)
    with pytest.raises(RunFailed, match=f"{store}: expected a folder of this user alone"):
        parcel.find(Path("nowhere"), "car_racing", checksum)
    assert parcel.find(saved_models, "car_racing", checksum) == saved_models


def test_workers_that_cannot_be_counted_end_the_run_in_a_line() -> None:
    def lost() -> int:
        raise OSError("Timed out trying to connect")

    executor = RemoteExecutor(SerialExecutor(), workers=lost)
    with pytest.raises(RunFailed, match="the executor does not answer: Timed out trying"):
        agent.chunk_size(16, executor)


def test_what_is_under_way_ends_when_the_executor_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there = Unanswered()
    executor = RemoteExecutor(there, timeout=60)
    threading.Timer(0.2, executor.lose, [RunFailed("the scheduler is gone")]).start()
    chunk = agent.Chunk("car_racing", (agent.Rollout(1, (1,)),), 3)
    with pytest.raises(RunFailed, match=r"^the scheduler is gone$"):
        map_chunks(executor, fail, [chunk] * 3)
    with pytest.raises(RunFailed, match=r"^the scheduler is gone$"):
        executor.submit(fail, chunk)
    for reply in there.replies:
        if not reply.cancelled():
            reply.set_result(([], []))  # it comes too late and is nobody's
    assert not caplog.records


class Unanswered(Executor):
    """Takes calls, and gives them futures that someone else may fulfil."""

    def __init__(self) -> None:
        self.replies: list[Future[object]] = []

    def submit(self, *_: object) -> Future[object]:  # type: ignore[override]
        self.replies.append(Future())
        return self.replies[-1]


class Trouble(Exception):
    pass


def fail(chunk: agent.Chunk) -> list[agent.Outcome]:
    raise Trouble(chunk.task)


def test_what_fails_there_fails_here() -> None:
    chunk = agent.Chunk("car_racing", (agent.Rollout(1, (1,)),), 3)
    with ThreadPoolExecutor(1) as there:
        executor = RemoteExecutor(there, timeout=60)
        with pytest.raises(RunFailed, match=r"failed 2 times, at last with Trouble: car_racing"):
            map_chunks(executor, fail, [chunk], attempts=2)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="the extra distributed is missing")
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:1", "nowhere"):
        with (
            pytest.raises(UserError, match=f"no Dask scheduler answers at {address}"),
            dask(address),
        ):
            pass


@pytest.mark.parametrize(
    ("rollouts", "workers", "size"),
    [
        (1024, 1, 47),
        (200, 2, 34),
        (96, 2, 48),
        (1024, 64, 16),
        (1024, 100, 11),
        (1024, 1000, 2),
        (16, 2, 8),
        (3, 8, 1),
        (16, 0, 16),  # all of them are lost for a moment
    ],
)
def test_chunks_are_so_small_that_every_worker_has_one(
    rollouts: int, workers: int, size: int
) -> None:
    executor = RemoteExecutor(SerialExecutor(), workers=lambda: workers)
    assert agent.chunk_size(rollouts, executor) == size
