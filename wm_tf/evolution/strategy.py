"""CMA-ES by ask and tell (pycma, after Hansen & Ostermeier 2001), with a state that is data.

The state is what went in: the initial mean, sigma, the seed and the fitness of every generation.
Everything else follows from it, so restoring is replaying `ask` and `tell`, a tenth of a second
for each generation, and gives bit for bit the strategy that was saved. (On the same kind of
processor: what a sum rounds to is the linear algebra library's. It works on one thread here, or the
number of threads would be part of it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import cma
import numpy as np
from threadpoolctl import ThreadpoolController

from wm_tf.errors import RunFailed
from wm_tf.seeding import Purpose, generator

_libraries = ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread; see the module's docstring."""
    return _libraries.limit(limits=1, user_api="blas")


class Strategy:
    """CMA-ES that maximises.

        strategy = Strategy(np.zeros(867), sigma=0.1, population=64, seed=1)
        candidates = strategy.ask()
        strategy.tell(fitness(candidates))

    Args:
      initial: mean of the first generation, [N].
      sigma: initial standard deviation of each parameter.
      population: P, candidates per generation.
      seed: of all its random numbers.
    """

    def __init__(self, initial: np.ndarray, sigma: float, population: int, seed: int) -> None:
        if population < 4:
            raise ValueError(f"population: expected at least 4, got {population}")
        if not sigma > 0:
            raise ValueError(f"sigma: expected a positive number, got {sigma}")
        self._initial = np.asarray(initial, np.float64)
        self._sigma = sigma
        self._population = population
        self._seed = seed
        self._fitness: list[np.ndarray] = []
        random = generator(seed, Purpose.EVOLUTION)
        options = {
            "popsize": population,
            "randn": lambda *shape: random.standard_normal(shape),
            "seed": np.nan,  # leave NumPy's global generator alone
            "verbose": -9,
        }
        self._es = cma.CMAEvolutionStrategy(self._initial, sigma, options)
        self._asked: list[np.ndarray] | None = None

    @property
    def generation(self) -> int:
        """Generations told so far."""
        return len(self._fitness)

    @property
    def mean(self) -> np.ndarray:
        """The distribution's mean, float64 [N]: the strategy's answer."""
        return np.array(self._es.mean)

    @property
    def sigma(self) -> float:
        """The distribution's overall standard deviation."""
        return float(self._es.sigma)

    @property
    def history(self) -> np.ndarray:
        """The fitness of every generation told, float64 [G, P]."""
        return np.array(self._fitness).reshape(-1, self._population)

    def ask(self) -> np.ndarray:
        """The generation's candidates, float64 [P, N]; the same ones until `tell`."""
        if self._asked is None:
            with one_thread():
                self._asked = self._es.ask()
        return np.array(self._asked)

    def tell(self, fitness: np.ndarray) -> None:
        """Takes the fitness of the candidates, [P]; higher is better.

        Raises:
          ValueError: another shape.
          RunFailed: a fitness is not finite; the strategy is unchanged.
        """
        fitness = np.asarray(fitness, np.float64)
        if fitness.shape != (self._population,):
            raise ValueError(f"fitness: expected [{self._population}], got {list(fitness.shape)}")
        if not np.isfinite(fitness).all():
            bad = int(np.flatnonzero(~np.isfinite(fitness))[0])
            raise RunFailed(
                f"generation {self.generation}: the fitness of candidate {bad} is {fitness[bad]} "
                f"(evolution seed {self._seed})"
            )
        self.ask()
        with one_thread():
            self._es.tell(self._asked, list(-fitness))
        self._asked = None
        self._fitness.append(fitness)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) from which `restore` makes the strategy again."""
        arrays = {"initial": self._initial, "fitness": self.history}
        facts = {"sigma": self._sigma, "population": self._population, "seed": self._seed}
        return arrays, facts

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Strategy:
        """The strategy whose `state` this is."""
        strategy = cls(arrays["initial"], facts["sigma"], facts["population"], facts["seed"])
        for fitness in arrays["fitness"]:
            strategy.tell(fitness)
        return strategy
