"""The real environment, driven by the same actions as the dream, and M fed with its frames.

    z_t ~ V(frame_t),  (h_{t+1}, c_{t+1}) and the mixture of z_{t+1} = M(z_t, a_t, h_t, c_t)

An environment cannot go back. What was seen is stored in the moments; driving on from an earlier
one simulates from the seed again, by the actions that led there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from player.world import World
    from wm_tf.data.episodes import Episode
    from wm_tf.dream.world import DreamState


@dataclass(frozen=True)
class RealMoment:
    """One point of a real episode."""

    frame: np.ndarray  # uint8 [64, 64, 3]
    state: DreamState  # z of this frame, and M's state from the real frames before it
    expected: np.ndarray | None = None  # [1, Z] what M expected of this frame, from the last one
    done_probability: float = 0.0  # what M gave to an end here
    step: int = 0
    reward: float = 0.0
    total: float = 0.0
    terminated: bool = False
    truncated: bool = False
    last_frame_repeated: bool = False
    end_probability: float | None = None  # of the action, where the environment knows it

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        state = self.state
        return self.frame.nbytes + state.latent.nbytes + state.h.nbytes + state.c.nbytes + 800


class RealWorld:
    """A real episode after the other, in one environment."""

    def __init__(self, world: World, environment: Any) -> None:
        self._world = world
        self._environment = environment
        self._latest: RealMoment | None = None  # where the environment is

    def begin(self, seed: int) -> RealMoment:
        """The first moment of the episode of that seed."""
        self._latest = None
        frame, _ = self._environment.reset(seed=seed)
        state = self._world.seen(frame, self._world.rest(seed))
        self._latest = RealMoment(frame.copy(), state)
        return self._latest

    def step(
        self, before: RealMoment, action: np.ndarray, past: Callable[[], Sequence[np.ndarray]]
    ) -> RealMoment:
        """The moment after `action` [A]; an episode that has ended stays as it is.

        Args:
          past: the actions that led to `before`, asked for if they must be simulated again.
        """
        if before.ended:
            return before
        latest, self._latest = self._latest, None  # after an error nobody knows where it is
        if before is not latest:
            self._simulate(before.state.seed, past())
        frame, reward, terminated, truncated, info = self._environment.step(action)
        expected, probability, state = self._world.followed(before.state, action, frame)
        self._latest = RealMoment(
            frame=frame.copy(),
            state=state,
            expected=expected,
            done_probability=probability,
            step=before.step + 1,
            reward=float(reward),
            total=before.total + float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            last_frame_repeated=bool(info.get("last_frame_repeated", False)),
            end_probability=info.get("end_probability"),
        )
        return self._latest

    def close(self) -> None:
        """Ends the environment."""
        self._environment.close()

    def _simulate(self, seed: int, actions: Sequence[np.ndarray]) -> None:
        self._environment.reset(seed=seed)
        for action in actions:
            self._environment.step(action)


def drift(real: RealMoment, dream: DreamState) -> float:
    """How far the dream is from what is: the root mean square of z_dream - z_real."""
    return float(np.sqrt(np.mean((real.state.latent - dream.latent) ** 2)))


def episode_of(
    real: Sequence[RealMoment], actions: Sequence[np.ndarray], policy: str
) -> Episode | None:
    """Real moments, from a beginning on, as an episode to train on; None if nothing was driven.

    Args:
      real: T + 1 moments or more; those after an end are left out.
      actions: the action that led to each moment; the first is not used.
      policy: who drove.
    """
    from wm_tf.data.episodes import Episode, known

    steps = real[-1].step  # moments after an end repeat the last one
    if steps == 0 or real[0].step != 0:
        return None
    kept = real[: steps + 1]
    return Episode(
        frames=np.stack([moment.frame for moment in kept]),
        actions=np.stack(actions[1 : steps + 1]).astype(np.float32),
        rewards=np.array([moment.reward for moment in kept[1:]], np.float32),
        terminated=kept[-1].terminated,
        truncated=kept[-1].truncated,
        last_frame_repeated=kept[-1].last_frame_repeated,
        seed=kept[0].state.seed,
        policy=policy,
        end_probability=known([moment.end_probability for moment in kept[1:]]),
    )
