"""What a person keeps of a drive: recordings, episodes of real frames, screenshots.

A drive on real frames is written as `recordings/TASK-real/episode-900001.npz` and so on. Copied
into a run's `rollouts/00/`, it is trained on by the next `encode` and `train-memory` (but each
twentieth, which is held out); collected episodes count from 0, so that none is overwritten.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path

import pygame

from player import recording
from player.history import Moment
from player.real import episode_of
from player.recording import Recorder
from player.session import Session
from wm_tf import storage
from wm_tf.data.episodes import FIRST_DRIVEN
from wm_tf.errors import RunFailed

FOLDER = Path("recordings")
"""Where everything goes, in the current folder."""


def write_picture(path: Path, surface: pygame.Surface) -> None:
    """Writes a PNG, whole or not at all; raises RunFailed if it cannot."""
    buffer = io.BytesIO()
    pygame.image.save(surface, buffer, path.name)
    storage.write_bytes(path, buffer.getvalue())


class Keeper:
    """Writes files; what it is doing is said in a message. RunFailed is raised if it cannot."""

    def __init__(self, task: str, export: Callable[[str, Path], None] | None = None) -> None:
        """`export` makes films of a task's finished recording, without being waited for."""
        self.task = task
        self._export = export
        self._recorder = Recorder()
        self._episode: tuple[Path, int, Moment] | None = None
        """The last one's file, how many moments it holds and which is its last: another recording
        that goes on from there takes its place, so that nothing is trained on twice."""

    @property
    def recording(self) -> bool:
        return self._recorder.running

    def toggle(self, session: Session) -> str:
        """Begins to record or ends it; returns what to say."""
        if self.recording:
            return self.finish(session) or "nothing was recorded"
        self._recorder.begin(session.history)
        return ""

    def follow(self, session: Session) -> str:
        """A dream that was left has its own file; the next one is recorded into another."""
        if not self.recording or self._recorder.follows(session.history):
            return ""
        message = self.finish(session)
        self._recorder.begin(session.history)
        return message

    def finish(self, session: Session) -> str:
        """Writes what was recorded, if anything was."""
        recorded, everything = self._recorder.finish()
        kept: list[Path] = []
        moments = recording.repeatable(recorded)
        if len(moments) > 1:
            path = self._new_file("jsonl")
            recording.write(path, recording.of(moments, self.task, session.world.digest))
            kept.append(path)
        drives = tuple(kept)
        if any(moment.real is not None for moment in recorded):  # the larger one is written last
            kept += self._keep_episode(session, everything)
        if self._export is not None:  # last, because nobody waits for the films
            for path in drives:
                self._export(self.task, path)
        return f"kept: {', '.join(str(path) for path in kept)}" if kept else ""

    def screenshot(self, surface: pygame.Surface) -> str:
        """Writes a picture of the window."""
        path = self._new_file("png")
        write_picture(path, surface)
        return f"kept: {path}"

    def _keep_episode(self, session: Session, moments: Sequence[Moment]) -> list[Path]:
        """Real frames under a person's and the controller's hands: an episode to train on."""
        from wm_tf.data import episodes

        real = [(m.real, m.action) for m in moments if m.real is not None]
        policy = f"player: {session.driver.value}"
        episode = episode_of([r for r, _ in real], [a for _, a in real], policy)
        if episode is None:
            return []
        path, steps, last = self._episode or (None, 1, None)
        if path is None or len(moments) < steps or moments[steps - 1] is not last:
            folder = FOLDER / f"{self.task}-real"
            paths = (episodes.episode_path(folder, index) for index in count(FIRST_DRIVEN + 1))
            path = next(path for path in paths if not path.exists())
        episodes.write_episode(path, episode, session.world.task)
        self._episode = path, len(moments), moments[-1]
        return [path]

    def _new_file(self, suffix: str) -> Path:
        try:
            FOLDER.mkdir(exist_ok=True)
        except OSError as error:
            raise RunFailed(f"{FOLDER}: cannot be made ({error.strerror})") from error
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        return FOLDER / f"{self.task}-{stamp}.{suffix}"
