"""Species: who belongs together, and how many children each kind has."""

import numpy as np
import pytest

from jaxnas.evolve.species import assign, champions, shares


def apart(one, other):
    return float(np.abs(one - other).sum())


def points(*xs):
    return np.array(xs, np.int32)[:, None]


NONE = (points(0, 0, 0), np.zeros(3, bool))


def test_the_first_of_a_kind_represents_it():
    kinds, representatives, alive = assign(apart, *NONE, points(5, 6, 20, 4, 21), threshold=3.0)
    assert kinds.tolist() == [0, 0, 1, 0, 1]
    assert representatives[:2, 0].tolist() == [5, 20]
    assert alive.tolist() == [True, True, False]


def test_species_are_told_by_earlier_representatives_in_their_order():
    kinds, *_ = assign(
        apart, points(0, 4, 0), np.array([True, True, False]), points(2, 3), threshold=3.0
    )
    assert kinds.tolist() == [0, 1]  # 2 is near to both and joins the first


def test_when_all_places_are_taken_the_nearest_species_takes_strangers():
    kinds, *_ = assign(apart, *NONE, points(0, 10, 20, 40, 13), threshold=3.0)
    assert kinds.tolist() == [0, 1, 2, 2, 1]


def test_a_place_left_by_a_dead_species_is_taken_again():
    alive = np.array([True, False, True])
    kinds, representatives, alive = assign(
        apart, points(0, 50, 9), alive, points(50, 25), threshold=3.0
    )
    assert kinds.tolist() == [1, 2]
    assert representatives[:, 0].tolist() == [0, 50, 9]


def test_offspring_go_by_mean_rank_and_sum_up():
    fitness = np.array([4.0, 3.0, 2.0, 1.0, -np.inf])
    kinds = np.array([0, 1, 1, 1, 2], np.int32)
    # ranks 5 4 3 2 and nothing: means 5, 3, 0
    assert shares(fitness, kinds, places=4, offspring=8).tolist() == [5, 3, 0, 0]
    for offspring in range(1, 20):
        assert shares(fitness, kinds, places=4, offspring=offspring).sum() == offspring


def test_a_crowd_gains_nothing_by_its_number():
    rng = np.random.default_rng(0)
    fitness = rng.random(100)
    kinds = np.where(np.arange(100) < 90, 0, 1).astype(np.int32)
    counts = shares(fitness, kinds, places=2, offspring=100)
    assert abs(counts[0] - 50) < 15


def test_where_nothing_has_a_fitness_children_go_by_number():
    kinds = np.array([0, 0, 0, 1], np.int32)
    assert shares(np.full(4, -np.inf), kinds, places=2, offspring=8).tolist() == [6, 2]


def test_champions_are_the_best_of_each_kind():
    fitness = np.array([1.0, 3.0, -np.inf, 2.0, -np.inf])
    kinds = np.array([0, 0, 1, 2, 2], np.int32)
    assert champions(fitness, kinds, places=4).tolist() == [1, -1, 3, -1]


@pytest.mark.parametrize("threshold", [0.0, 100.0])
def test_extreme_thresholds_make_all_strangers_or_one_family(threshold):
    kinds, *_ = assign(apart, *NONE, points(1, 2, 3), threshold=threshold)
    assert kinds.tolist() == ([0, 1, 2] if threshold == 0 else [0, 0, 0])
