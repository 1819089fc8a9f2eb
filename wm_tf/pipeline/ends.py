"""How a round's dreams end: chosen by how long they last under the exploring policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm_tf import seeding
from wm_tf.data.latents import read_latents
from wm_tf.dream.survival import RANDOM_DREAMS_PER_CALL, choose_end_rule, random_dreams
from wm_tf.errors import UserError
from wm_tf.models import Memory
from wm_tf.pipeline.run import Run, Values
from wm_tf.seeding import Purpose
from wm_tf.serving.manifest import EndRule
from wm_tf.training.starts import choose_starts

DREAMS = 4 * RANDOM_DREAMS_PER_CALL
TEMPERATURES = (1.0, 1.15)


def measure_ends(
    run: Run, round_index: int, memory: Memory, latents: Sequence[Path], odds_correction: float
) -> Values:
    """Chooses the rule by which the dreams of a round's M end.

    Args:
      run: whose round it is.
      round_index: of the round.
      memory: M.
      latents: all encoded episodes; those of the first round are the exploring policy's.
      odds_correction: by how much the end head's loss weights the steps that end an episode.

    Returns:
      ``end_rule``, ``end_value``, ``end_odds_correction``, and that policy's mean survival in
      steps: ``survival_real``, ``survival_dream_T`` for each temperature T. A run that began with
      published models may have no episodes of that policy: then their rule stays.
    """
    task, seed = run.config.task, run.config.seed
    first = [path for path in latents if path.parent == run.latents(0)]
    if not first:
        return _values(end_rule(run, round_index - 1))
    real = float(np.mean([read_latents(path, task).steps for path in first]))
    random = seeding.generator(seed, Purpose.MEMORY, round_index, 1)
    starts = choose_starts(memory, first, task, count=DREAMS, random=random, later=False)
    calls = range(DREAMS // RANDOM_DREAMS_PER_CALL)
    streams = [seeding.sequence(seed, Purpose.MEMORY, round_index, 2, call) for call in calls]
    dreams = {
        temperature: random_dreams(
            task, memory, starts, episodes=DREAMS, streams=streams, temperature=temperature
        )
        for temperature in TEMPERATURES
    }
    rule = choose_end_rule(list(dreams.values()), real, odds_correction)
    survival = {
        f"survival_dream_{temperature:g}": float(dreamt.lengths(rule).mean())
        for temperature, dreamt in dreams.items()
    }
    return {**_values(rule), "survival_real": real, **survival}


def _values(rule: EndRule) -> Values:
    return {
        "end_rule": rule.rule,
        "end_value": rule.value,
        "end_odds_correction": rule.odds_correction,
    }


def end_rule(run: Run, round_index: int) -> EndRule:
    """How the dreams of the M that a round has end: as `measure_ends` chose, or never.

    Raises:
      UserError: the training of that M was interrupted.
    """
    for index in range(round_index, -1, -1):
        record = run.record("memory", index)
        if record is not None:
            if not record["done"]:
                raise UserError(
                    f"{run.folder}: the training of M in round {index} was interrupted; "
                    f"train-memory --round {index} goes on"
                )
            result = record["result"]
            if "end_odds_correction" in result:
                return EndRule(
                    result["end_rule"], result["end_value"], result["end_odds_correction"]
                )
            return EndRule("never", None, record["inputs"]["done_positive_weight"])
    return EndRule("never")
