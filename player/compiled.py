"""The signatures of a task's SavedModels put together, so that a step is one call of TensorFlow.

A call costs about half a millisecond however little it computes, a third of a step when C, M and
V's decoder are called one after the other. The numbers are exactly those of the single calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_tf.serving.load import Models


@dataclass(frozen=True)
class Dreamt:
    """What one step of the dream gave, each with a leading axis of 1."""

    latent: np.ndarray
    h: np.ndarray
    c: np.ndarray
    reward: np.ndarray
    done_probability: np.ndarray  # as trained
    wish: np.ndarray | None  # what the controller would do next
    frame: np.ndarray | None  # uint8 [1, 64, 64, 3], if it was asked for


class Compiled:
    """The calls of a task's models."""

    def __init__(self, models: Models) -> None:
        self._task = models.task
        self._has_controller = models.has_controller
        signatures = {key: call.module.signatures[key[1]] for key, call in models.calls.items()}  # type: ignore[attr-defined]
        self._dream = {shown: self._dream_call(signatures, shown) for shown in (False, True)}
        self._follow = self._follow_call(signatures)

    @staticmethod
    def possible(models: Models) -> bool:
        """Whether the models are SavedModels, and not functions that stand in for them."""
        return all(hasattr(call, "module") for call in models.calls.values())

    def dream(
        self, arrays: tuple[np.ndarray, ...], temperature: float, seed: tuple[int, int], shown: bool
    ) -> Dreamt:
        """One step.

        Args:
          arrays: latent [1, Z], action [1, A], h and c [1, H].
          temperature, seed: as of the signature `dream`.
          shown: whether the picture is wanted.
        """
        import tensorflow as tf

        tensors = [tf.constant(array, tf.float32) for array in arrays]
        result = self._dream[shown](
            *tensors, tf.constant(temperature, tf.float32), tf.constant(seed, tf.int32)
        )
        values = {name: tensor.numpy() for name, tensor in result.items()}
        return Dreamt(wish=values.pop("wish", None), frame=values.pop("frame", None), **values)

    def follow(self, frame: np.ndarray, arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
        """V's moments of a frame, uint8 [1, 64, 64, 3], and M's step on what was before it.

        Returns:
          `mean` and `log_variance` [1, Z] of the frame; `logits` and `means` [1, Z, K] that M
          expected of it, and `done_logit` [1]; M's state `h`, `c` [1, H].
        """
        import tensorflow as tf

        tensors = [tf.constant(array, tf.float32) for array in arrays]
        result = self._follow(tf.constant(frame), *tensors)
        return {name: tensor.numpy() for name, tensor in result.items()}

    def _dream_call(self, signatures: dict[tuple[str, str], Any], shown: bool) -> Callable:
        import tensorflow as tf

        @tf.function(autograph=False)
        def call(latent, action, h, c, temperature, seed):  # type: ignore[no-untyped-def]
            step = signatures["memory", "dream"](
                latent=latent, action=action, h=h, c=c, temperature=temperature, seed=seed
            )
            following = {name: step[name] for name in ("latent", "h", "c")}
            result = {
                **following,
                "reward": step["reward"],
                "done_probability": step["done_probability"],
            }
            if self._has_controller:
                result["wish"] = signatures["controller", "act"](**following)["action"]
            if shown:
                frame = signatures["vision", "decode"](latent=step["latent"])["frame"]
                result["frame"] = tf.cast(tf.round(frame * 255.0), tf.uint8)
            return result

        return call.get_concrete_function(
            *self._inputs(), tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.int32)
        )

    def _follow_call(self, signatures: dict[tuple[str, str], Any]) -> Callable:
        import tensorflow as tf

        @tf.function(autograph=False)
        def call(frame, latent, action, h, c):  # type: ignore[no-untyped-def]
            seen = signatures["vision", "encode"](frame=frame)
            step = signatures["memory", "step"](latent=latent, action=action, h=h, c=c)
            expected = {name: step[name] for name in ("logits", "done_logit")}
            expected["means"] = step["mean"]
            return {**seen, **expected, "h": step["h"], "c": step["c"]}

        frame = tf.TensorSpec([1, 64, 64, 3], tf.uint8)
        return call.get_concrete_function(frame, *self._inputs())

    def _inputs(self) -> list[Any]:
        """Of M, for a batch of one."""
        import tensorflow as tf

        sizes = (self._task.latent_size, self._task.action_size, *[self._task.hidden_size] * 2)
        return [tf.TensorSpec([1, size], tf.float32) for size in sizes]
