"""The training loop that V and M share: `keras.Model.fit`, an epoch at a time, resumable."""

from __future__ import annotations

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from wm_tf import seeding, storage
from wm_tf.data.streams import damage_in
from wm_tf.errors import RunFailed, UserError
from wm_tf.progress import Progress
from wm_tf.seeding import Purpose
from wm_tf.training import checkpoint

_DRAWS_PER_EPOCH = 2**20
"""By which the random numbers of epochs are apart."""
_KEPT = "; the checkpoint holds the weights of the epoch before"


@dataclass(frozen=True)
class Places:
    """Where a training writes."""

    checkpoint: Path
    logs: Path
    """A folder: TensorBoard events, and metrics.jsonl with a line per epoch."""
    start: Path | None = None
    """The checkpoint to go on from where `checkpoint` does not exist yet."""


def seed_weights(seed: int, purpose: Purpose) -> None:
    """Makes the initial weights of the models that are made next depend on the seed alone."""
    keras.utils.set_random_seed(seeding.environment_seed(seeding.sequence(seed, purpose)))


def fit(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    *,
    epochs: int,
    places: Places,
    facts: Mapping[str, Any],
    name: str,
    decay: float = 1.0,
) -> float:
    """Trains a compiled model until it has seen `epochs` epochs, those of its checkpoints included.

    The checkpoint is renewed after every epoch, and an interrupted training goes on from it. The
    result is the same as of an uninterrupted one.

    Args:
      model: compiled.
      batches: the batches of an epoch, which is given.
      epochs: in total.
      places: where to write.
      facts: JSON values that the checkpoint shall hold.
      name: of the work, for its progress.
      decay: to which share the learning rate falls from the first epoch after `places.start` to
        the last one.

    Returns:
      Seconds of training, earlier runs of it included.

    Raises:
      RunFailed: a metric became NaN or infinite; the checkpoint, where there is one, holds the last
        good weights.
      DamagedFile: a file of the data is damaged.
      UserError: the data do not fill one batch.
    """
    done, seconds = 0, 0.0
    first = 0 if places.start is None else int(checkpoint.facts(places.start)["epochs"])
    learning_rate = float(model.optimizer.learning_rate.numpy())
    start = places.checkpoint if places.checkpoint.exists() else places.start
    if start is not None:
        earlier = checkpoint.restore(start, model)
        done, seconds = int(earlier["epochs"]), float(earlier["seconds"])
    with Log(places.logs) as log, Progress(name, None, "steps") as progress:
        for epoch in range(done, epochs):
            began = time.monotonic()
            kept = _KEPT if places.checkpoint.exists() else ""
            watch = _Watch(progress, epoch, kept)
            rate = learning_rate * decay ** ((epoch - first) / max(epochs - 1 - first, 1))
            model.optimizer.learning_rate = rate
            _fit_epoch(model, batches(epoch), epoch, watch)
            if not watch.steps:
                raise UserError(f"{name}: there is less data to train on than one batch")
            progress.expect(watch.steps * (epochs - done))  # as in the epochs that follow
            _check_finite(model, epoch, kept)
            seconds += time.monotonic() - began
            state = {**facts, "epochs": epoch + 1, "seconds": seconds}
            checkpoint.save(places.checkpoint, model, state)
            log.write(epoch, seconds=seconds, learning_rate=rate, **watch.metrics)
    return seconds


def _fit_epoch(model: keras.Model, stream: tf.data.Dataset, epoch: int, watch: _Watch) -> None:
    done = int(model.optimizer.iterations.numpy())
    model.seed_generator.state.assign([model.seed, epoch * _DRAWS_PER_EPOCH])
    with warnings.catch_warnings():
        # The number of batches is not known beforehand, which Keras takes for a mistake.
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        try:
            model.fit(
                stream,
                initial_epoch=epoch,
                epochs=epoch + 1,
                verbose=0,
                shuffle=False,  # the stream is shuffled
                callbacks=[watch],
            )
        except tf.errors.OpError as error:
            raise damage_in(error) or error from None
    # The call that meets the stream's end changes no weight, but TensorFlow may have counted it and
    # drawn for it before that: the same training would have other numbers from one time to another.
    model.optimizer.iterations.assign(done + watch.steps)


def _check_finite(model: keras.Model, epoch: int, kept: str) -> None:
    """The metrics of an epoch's last step are those of the weights before it."""
    for weight in model.trainable_weights:
        if not np.isfinite(weight.numpy()).all():
            raise RunFailed(
                f"{weight.path} became NaN or infinite at the last step of epoch {epoch}{kept}"
            )


class Log:
    """Figures of a long work: a line for each step in metrics.jsonl, and TensorBoard events.

    Args:
      folder: where both are written.

    Raises:
      RunFailed: they cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Log:
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._events = tf.summary.create_file_writer(str(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing():
            self._events.close()

    def write(self, step: int, **figures: float) -> None:
        """Adds the figures of a step."""
        storage.append_line(self._folder / "metrics.jsonl", json.dumps({"step": step, **figures}))
        with self._writing(), self._events.as_default():
            for name, value in figures.items():
                tf.summary.scalar(name, value, step=step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(f"cannot write {self._folder}: {error.strerror or error}") from error
        except tf.errors.OpError as error:
            reason = storage.reason_of(error.message)
            raise RunFailed(f"cannot write {self._folder}: {reason}") from error


class _Watch(keras.callbacks.Callback):
    """Shows progress, and stops at the first step whose metrics are not finite."""

    def __init__(self, progress: Progress, epoch: int, kept: str) -> None:
        super().__init__()
        self._progress = progress
        self._epoch = epoch
        self._kept = kept
        self.steps = 0
        self.metrics: dict[str, float] = {}
        """Means over the epoch's steps so far; Keras's own also count the call without a batch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        metrics = logs or {}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunFailed(
                    f"{name} became {value} at step {batch} of epoch {self._epoch}{self._kept}"
                )
        self.steps += 1
        self.metrics = dict(metrics)
        self._progress.advance(epoch=self._epoch, **metrics)
