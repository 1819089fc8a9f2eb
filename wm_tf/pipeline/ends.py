"""How a round's dreams end."""

from __future__ import annotations

from wm_tf.errors import UserError
from wm_tf.pipeline.run import Run
from wm_tf.serving.manifest import EndRule


def end_rule(run: Run, round_index: int) -> EndRule:
    """How the dreams of the M that a round has end.

    Where survival counts, by a draw with the end head's probability, without the weight that its
    loss gave to the steps that end an episode: such draws kill as often as the task does (see
    RESULTS.md). Elsewhere never. Published models that a run began with keep their own rule.

    Raises:
      UserError: the training of that M was interrupted.
    """
    for index in range(round_index, -1, -1):
        record = run.record("memory", index)
        if record is None:
            continue
        if not record["done"]:
            raise UserError(
                f"{run.folder}: the training of M in round {index} was interrupted; "
                f"train-memory --round {index} goes on"
            )
        if "imported" in record["inputs"]:
            held = record["result"]
            return EndRule(held["end_rule"], held["end_value"], held["end_odds_correction"])
        weight = record["inputs"]["done_positive_weight"]
        return EndRule("sampled" if run.config.task.mortal else "never", None, weight)
    return EndRule("never")
