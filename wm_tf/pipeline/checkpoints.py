"""What a run has learnt: V and M as of a round, and the controllers in their order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wm_tf import storage
from wm_tf.data.episodes import check_metadata
from wm_tf.errors import UserError
from wm_tf.pipeline.run import CONTROLLER_STAGES, Env, Run, Values

if TYPE_CHECKING:
    from wm_tf.models import Memory, Vision


def load_vision(run: Run, round_index: int) -> Vision:
    """V as of a round, in float32."""
    from wm_tf.models import Vision
    from wm_tf.training.checkpoint import restore

    vision = Vision(run.config.task.latent_size)
    restore(run.required_checkpoint("vision", round_index), vision, weights_only=True)
    return vision


def load_memory(run: Run, round_index: int) -> Memory:
    """M as of a round."""
    from wm_tf.models import Memory
    from wm_tf.training.checkpoint import restore

    task = run.config.task
    memory = Memory(task.latent_size, task.action_size, task.hidden_size, task.mixtures)
    restore(run.required_checkpoint("memory", round_index), memory, weights_only=True)
    return memory


@dataclass(frozen=True)
class Evolved:
    """What an evolution of the run gave."""

    parameters: np.ndarray
    """[N], the mean of the distribution that scored best on the selection seeds."""
    last: np.ndarray
    """[N], the mean after the last generation."""
    selection: float
    """Mean return of `parameters` on the selection seeds."""
    tried: list[tuple[float, float, float]]
    """(generation, mean return, standard error) of every mean that was scored there."""
    round_index: int
    env: Env


def controllers(run: Run) -> list[Evolved]:
    """The run's controllers in the order of their making.

    Left out are those that were evolved for other networks than their round has now, and those
    whose training was interrupted before anything was scored.
    """
    found = []
    for round_index in range(run.rounds()):
        for env, name in CONTROLLER_STAGES.items():
            path = run.checkpoint(name, round_index)
            if path.exists():
                from wm_tf.evolution.train import read_state

                arrays, metadata = read_state(path, run.config.task)
                made_for = metadata["facts"].get("networks")  # imported ones came with theirs
                if made_for is not None and not _has(run, round_index, made_for):
                    continue
                tried = [tuple(row) for row in arrays["selections"].tolist()]
                if made_for is not None and not tried:
                    continue
                best = max((score for _, score, _ in tried), default=-np.inf)
                found.append(Evolved(arrays["best"], arrays["mean"], best, tried, round_index, env))
    return found


def last_controller(run: Run, round_index: int, env: Env) -> Evolved | None:
    """The last controller made before that of a round and an environment."""
    order = list(CONTROLLER_STAGES)
    place = (round_index, order.index(env))
    earlier = [
        found for found in controllers(run)
        if (found.round_index, order.index(found.env)) < place
    ]  # fmt: skip
    return earlier[-1] if earlier else None


def last_parameters(run: Run, round_index: int, env: Env) -> np.ndarray | None:
    """The parameters of `last_controller`, or None."""
    found = last_controller(run, round_index, env)
    return None if found is None else found.parameters


def parameters_as_of(run: Run, round_index: int) -> np.ndarray | None:
    """The parameters of a round's best controller, or of the last one before it, or None."""
    if any(found.round_index == round_index for found in controllers(run)):
        return best_of_round(run, round_index).parameters
    return last_parameters(run, round_index, "dream")


def best_of_round(run: Run, round_index: int) -> Evolved:
    """A round's controller with the highest score on the selection seeds."""
    made = [found for found in controllers(run) if found.round_index == round_index]
    if not made:
        raise UserError(f"{run.folder}: round {round_index} has no controller; train it first")
    return max(made, key=lambda found: found.selection)


def networks(run: Run, round_index: int) -> Values:
    """Stamps of the V and M that a round has.

    Raises:
      DamagedFile: the checkpoint of one is damaged or foreign, which does not make it another one.
      UserError: M was trained on what another V sees.
    """
    stamps = _stamps(run, round_index)
    made = round_of(run.required_checkpoint("memory", round_index))
    record = run.record("memory", made)
    seen_by = None if record is None else record["inputs"].get("vision")
    if seen_by is None:  # it was imported together with its V
        seen_by = storage.stamp(run.required_checkpoint("vision", made))
    if seen_by != stamps["vision"]:
        raise UserError(
            f"{run.folder}: M of round {made} was trained on what another V sees; "
            f"train-memory --round {round_index} trains one on this V"
        )
    return stamps


def _stamps(run: Run, round_index: int) -> Values:
    return {
        model: storage.stamp(checked_checkpoint(run, model, round_index))
        for model in ("vision", "memory")
    }


def _has(run: Run, round_index: int, stamps: Values) -> bool:
    """Whether a round has the V and M of these stamps; those it has are read only if in doubt."""
    held = {model: storage.stamp(run.required_checkpoint(model, round_index)) for model in stamps}
    return held == stamps or _stamps(run, round_index) == stamps


def round_of(checkpoint: Path) -> int:
    """The round that made a checkpoint, by its name."""
    return int(checkpoint.stem.rsplit("-", 1)[1])


def checked_checkpoint(run: Run, model: str, round_index: int) -> Path:
    """As `Run.required_checkpoint`; raises DamagedFile where it is damaged or foreign."""
    from wm_tf.training.checkpoint import FORMAT_VERSION

    path = run.required_checkpoint(model, round_index)
    held = {"format_version": 1, **storage.read_metadata(path)}  # the first ones did not say
    check_metadata(path, held, "checkpoint", FORMAT_VERSION, run.config.task)
    return path


def member_rounds(run: Run, round_index: int, count: int) -> list[int]:
    """The rounds of the M that a round has and of those before it that have the same V.

    Args:
      run: has them.
      round_index: of the last.
      count: how many.

    Raises:
      UserError: there are fewer, or no V or M at all.
    """
    vision = run.required_checkpoint("vision", round_index)
    run.required_checkpoint("memory", round_index)
    *earlier, last = (
        index for index in range(round_index + 1) if run.checkpoint("memory", index).exists()
    )
    rounds = [index for index in earlier if run.last_checkpoint("vision", index) == vision]
    rounds.append(last)
    if count > len(rounds):
        raise UserError(
            f"--members: expected at most {len(rounds)}, the Ms of round {round_index}'s V, "
            f"got {count}"
        )
    return rounds[-count:]
