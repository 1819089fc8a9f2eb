"""CMA-ES: it improves by what it is told, and its state is all of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wm_tf.errors import RunFailed
from wm_tf.evolution.strategy import Strategy

SIZE = 10
GOAL = np.linspace(-1.0, 1.0, SIZE)


def quadratic(candidates: np.ndarray) -> np.ndarray:
    """Higher is better; 0 at the goal."""
    return -((candidates - GOAL) ** 2).sum(axis=1)


def evolved(tell: Callable[[Strategy, np.ndarray], None], generations: int = 40) -> Strategy:
    strategy = Strategy(np.zeros(SIZE), sigma=0.3, population=12, seed=1)
    for _ in range(generations):
        tell(strategy, quadratic(strategy.ask()))
    return strategy


def not_told(strategy: Strategy, fitness: np.ndarray) -> None:
    """Leaves `tell` out."""


def told_nothing(strategy: Strategy, fitness: np.ndarray) -> None:
    """Tells a fitness that has nothing to do with the candidates."""
    strategy.tell(np.random.default_rng(strategy.generation).permutation(fitness))


@pytest.mark.parametrize(
    ("tell", "learns"), [(Strategy.tell, True), (not_told, False), (told_nothing, False)]
)
def test_it_improves_by_what_it_is_told(
    tell: Callable[[Strategy, np.ndarray], None], learns: bool
) -> None:
    start = quadratic(np.zeros((1, SIZE)))[0]
    reached = quadratic(evolved(tell).mean[np.newaxis])[0]
    assert (reached > 0.05 * start) == learns  # nineteen twentieths of the way


def test_it_maximises() -> None:
    strategy = Strategy(np.zeros(4), sigma=0.1, population=8, seed=1)
    for _ in range(10):
        strategy.tell(strategy.ask()[:, 2])
    assert strategy.mean[2] > 0.3
    assert np.abs(np.delete(strategy.mean, 2)).max() < strategy.mean[2]


def test_candidates_are_the_same_until_told() -> None:
    strategy = Strategy(np.zeros(SIZE), sigma=0.3, population=12, seed=1)
    first = strategy.ask()
    assert first.shape == (12, SIZE)
    assert first.dtype == np.float64
    again = strategy.ask()
    np.testing.assert_array_equal(first, again)
    again[:] = 0.0  # a copy
    np.testing.assert_array_equal(first, strategy.ask())
    strategy.tell(quadratic(first))
    assert not np.any(strategy.ask() == first)
    assert strategy.generation == 1
    np.testing.assert_array_equal(strategy.history, [quadratic(first)])


def same(one: Strategy, other: Strategy) -> None:
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.history, other.history)
    np.testing.assert_array_equal(one.ask(), other.ask())
    assert one.sigma == other.sigma
    assert one.generation == other.generation


@pytest.mark.parametrize("generations", [0, 1, 25])
@pytest.mark.parametrize("asked", [False, True])
def test_a_restored_strategy_goes_on_bit_for_bit(generations: int, asked: bool) -> None:
    whole = evolved(Strategy.tell, generations)
    if asked:
        whole.ask()
    restored = Strategy.restore(*whole.state())
    for _ in range(5):
        same(whole, restored)
        for strategy in (whole, restored):
            strategy.tell(quadratic(strategy.ask()))
    same(whole, restored)


def test_the_seed_and_nothing_else_decides() -> None:
    np.random.seed(1)
    one = evolved(Strategy.tell, 3)
    before = np.random.get_state()[1].copy()
    np.random.seed(2)
    same(one, evolved(Strategy.tell, 3))
    other = Strategy(np.zeros(SIZE), sigma=0.3, population=12, seed=2)
    assert not np.any(other.ask() == one.ask())
    np.random.seed(1)
    evolved(Strategy.tell, 3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # NumPy's own was not used


def test_candidates_have_the_mean_and_the_sigma_that_were_asked_for() -> None:
    initial = np.full(200, 3.0)
    candidates = Strategy(initial, sigma=0.5, population=64, seed=4).ask()
    deviation = (candidates - 3.0) / 0.5
    assert abs(deviation.mean()) < 5.0 / np.sqrt(deviation.size)
    assert deviation.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_fitness_that_is_not_finite_is_never_replaced(bad: float) -> None:
    strategy = evolved(Strategy.tell, 3)
    twin = evolved(Strategy.tell, 3)
    fitness = quadratic(strategy.ask())
    fitness[7] = bad
    with pytest.raises(RunFailed, match=rf"generation 3: .* 7 is {bad} \(evolution seed 1\)"):
        strategy.tell(fitness)
    same(strategy, twin)


def test_equal_fitnesses_are_taken() -> None:
    strategy = Strategy(np.zeros(SIZE), sigma=0.3, population=12, seed=1)
    for _ in range(5):
        strategy.tell(np.zeros(12))
    assert np.isfinite(strategy.mean).all()
    assert 0.0 < strategy.sigma < 10.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": 3}, "population: expected at least 4, got 3"),
        ({"sigma": 0.0}, "sigma: expected a positive number, got 0.0"),
        ({"sigma": np.nan}, "sigma: expected a positive number, got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Strategy(np.zeros(3), **{"sigma": 0.1, "population": 8, "seed": 1, **arguments})


def test_a_fitness_of_another_shape_is_refused() -> None:
    strategy = Strategy(np.zeros(3), sigma=0.1, population=8, seed=1)
    with pytest.raises(ValueError, match=r"fitness: expected \[8\], got \[7\]"):
        strategy.tell(np.zeros(7))
