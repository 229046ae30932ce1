"""How many candidates go into one program."""

import pytest

from jaxnas.train import plan
from jaxnas.train.plan import Plan, choose


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        ("loop", Plan(1, False)),
        ("scan", Plan(1, True)),
        ("vmap", Plan(7, False)),
        ("vmap_scan", Plan(7, True)),
    ],
)
def test_a_named_execution_is_what_happens(execution, expected):
    assert choose(execution, 7) == expected


@pytest.mark.parametrize(
    ("free", "bytes_each", "together"),
    [(1_000, 100, 7), (500, 100, 4), (100, 100, 1), (0, 100, 7), (1_000, 0, 7), (624, 100, 4)],
)
def test_a_group_takes_four_fifths_of_the_free_memory(monkeypatch, free, bytes_each, together):
    monkeypatch.setattr(plan, "_free_bytes", lambda: free)
    assert choose("vmap_scan", 7, bytes_each=bytes_each) == Plan(together, True)
    assert choose("scan", 7, bytes_each=bytes_each) == Plan(1, True)


@pytest.mark.parametrize(("backend", "expected"), [("cpu", 1), ("gpu", 7), ("tpu", 7)])
def test_auto_is_side_by_side_on_accelerators_only(monkeypatch, backend, expected):
    monkeypatch.setattr(plan.jax, "default_backend", lambda: backend)
    assert choose("auto", 7) == Plan(expected, True)


@pytest.mark.parametrize(
    ("candidates", "together"), [(1, 1), (8, 8), (9, 5), (17, 6), (64, 8), (65, 8)]
)
def test_sequences_on_cpu_go_in_groups_of_one_size_of_at_most_eight(candidates, together):
    assert choose("auto", candidates, images=False) == Plan(together, True)


def test_an_unknown_execution_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="auto, loop, scan, vmap, vmap_scan, but got 'fast'"):
        choose("fast", 3)
