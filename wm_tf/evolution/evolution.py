"""An evolution: a strategy, what it searches and what its candidates are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wm_tf.config import ControllerConfig
from wm_tf.evolution.fitness import FitnessFunction
from wm_tf.evolution.space import Space
from wm_tf.evolution.strategy import Strategy


class Evolution:
    """Improves a controller by CMA-ES: ask, evaluate, tell.

    Args:
      fitness: of a generation's candidates.
      space: what is searched, around the controller to begin with.
      config: its `population` and `sigma`.
      seed: of the strategy.
    """

    def __init__(
        self, fitness: FitnessFunction, space: Space, config: ControllerConfig, seed: int
    ) -> None:
        self._fitness = fitness
        self._space = space
        self.strategy = Strategy(space.start, config.sigma, config.population, seed)

    @property
    def generation(self) -> int:
        """Generations so far."""
        return self.strategy.generation

    @property
    def mean(self) -> np.ndarray:
        """Parameters [N] of the distribution's mean."""
        return self._space.parameters(self.strategy.mean)

    def advance(self) -> dict[str, float]:
        """A generation.

        Returns:
          ``best`` and ``mean``: of the candidates' fitness; ``sigma``; ``steps``: of all rollouts.

        Raises:
          RunFailed: a fitness is not finite; nothing has changed.
        """
        strategy = self.strategy
        result = self._fitness(self._space.parameters(strategy.ask()), strategy.generation)
        strategy.tell(result.returns)
        return {
            "best": float(result.returns.max()),
            "mean": float(result.returns.mean()),
            "sigma": strategy.sigma,
            "steps": float(result.steps),
        }

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) from which `restore` goes on."""
        return self.strategy.state()

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.strategy = Strategy.restore(arrays, facts)
