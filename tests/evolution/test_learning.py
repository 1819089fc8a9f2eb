"""From the published V and M, a few generations in the dream make a controller better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wm_tf import seeding
from wm_tf.agent import ModelsAt
from wm_tf.config import ControllerConfig, get_task
from wm_tf.execution import SerialExecutor
from wm_tf.seeding import Purpose
from wm_tf.serving import manifest

CONFIG = ControllerConfig(generations=12, population=16, rollouts=8, horizon=150)
UNSEEN = 64


@pytest.fixture(scope="module")
def gain() -> Callable[[bool], np.ndarray]:
    """What evolving gains over the first mean on unseen dreams, [UNSEEN], with or without tell."""
    from wm_tf.dream.population import PopulationRollout, Starts
    from wm_tf.evolution.fitness import DreamFitness
    from wm_tf.evolution.strategy import Strategy
    from wm_tf.serving.initial import InitialLatents
    from wm_tf.serving.load import load_keras

    task = get_task("car_racing")
    folder = manifest.find_models("saved_models", task.name)
    _, memory, _ = load_keras("saved_models", task.name)
    rollout = PopulationRollout(task, memory, manifest.EndRule("never"))
    starts = InitialLatents.read(folder, task)
    models = ModelsAt(folder.parent, manifest.checksum(folder))
    fitness = DreamFitness(SerialExecutor(), task, (models,), CONFIG, seed=5)

    def score(parameters: np.ndarray) -> np.ndarray:
        stream = seeding.sequence(6, Purpose.EVALUATION, 0)
        start = Starts(*starts.sample(np.random.default_rng(stream), UNSEEN, task.hidden_size))
        return rollout(parameters[np.newaxis], start, seed=7, horizon=CONFIG.horizon).returns[0]

    def measure(tell: bool) -> np.ndarray:
        initial = np.zeros(task.controller_parameters)
        strategy = Strategy(initial, CONFIG.sigma, CONFIG.population, seed=5)
        best = initial
        for generation in range(CONFIG.generations):
            result = fitness(strategy.ask(), generation)
            if tell:
                strategy.tell(result.returns)
                best = strategy.mean
            else:  # an optimiser that never learns: any candidate is as good as another
                best = strategy.ask()[0]
        return score(best) - score(initial)

    return measure


def _standard_errors(gains: np.ndarray) -> float:
    return float(gains.mean() / (gains.std(ddof=1) / np.sqrt(len(gains))))


def test_evolving_in_the_dream_improves_the_score(gain: Callable[[bool], np.ndarray]) -> None:
    assert _standard_errors(gain(True)) > 3.0


def test_it_does_not_without_tell(gain: Callable[[bool], np.ndarray]) -> None:
    assert _standard_errors(gain(False)) < 3.0
