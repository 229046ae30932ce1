"""Archives against a dict in plain Python, and the search over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.elites import Elites, share

from jaxnas.core import Asked, Measured, close, compiled, over_seeds, run_scan
from jaxnas.evolve.archive import Axis, add, cell, cvt, drawn, empty, filled, grid, placed
from jaxnas.evolve.map_elites import iso_line, map_elites

pytestmark = pytest.mark.usefixtures("quick_compile")
CENTROIDS = jax.random.uniform(jax.random.key(3), (7, 2))
ODD = (np.nan, np.inf, -np.inf)
compiled_add = jax.jit(add)


def batch(rng, n=12):
    """Few different fitnesses, so that many tie, and some numbers that are none."""
    fitness = rng.integers(0, 4, n).astype(np.float32)
    where = rng.random((n, 2), np.float32)
    for column in (fitness, where[:, 0], where[:, 1]):
        at = rng.random(n) < 0.1
        column[at] = rng.choice(ODD, at.sum())
    return fitness, where


def genotype(name):
    """Of leaves of three types that must stay together; the whole number fits no float32."""
    return {
        "name": jnp.int32(2**24 + 1) + name,
        "half": jnp.float16(name),
        "row": jnp.stack([name, -name]).astype(jnp.int8),
    }


def test_sixty_batches_with_ties_and_odd_numbers_fill_the_cells_that_a_dict_has():
    rng = np.random.default_rng(0)
    archive, oracle = empty(genotype(jnp.int32(0)), CENTROIDS), Elites(CENTROIDS.tolist())
    for turn in range(60):
        fitness, where = batch(rng)
        names = jnp.arange(12) + 12 * turn % 100
        before = np.asarray(archive.fitness)
        archive, entered = compiled_add(archive, jax.vmap(genotype)(names), fitness, where)
        wanted = [
            oracle.add(int(name), float(f), w.tolist())
            for name, f, w in zip(names, fitness, where, strict=True)
        ]
        assert entered.tolist() == wanted
        assert np.all(np.asarray(archive.fitness) >= before), "an elite got worse"
        assert np.flatnonzero(filled(archive)).tolist() == sorted(oracle.cells)
        for at, (name, best, spot) in oracle.cells.items():
            held = jax.tree.map(lambda leaf, at=at: leaf[at], archive.genotypes)
            jax.tree.map(np.testing.assert_array_equal, held, genotype(jnp.int32(name)))
            assert float(archive.fitness[at]) == best
            np.testing.assert_array_equal(archive.descriptors[at], np.float32(spot))
    assert len(oracle.cells) == 7
    assert archive.genotypes["half"].dtype == jnp.float16


def test_a_batch_is_the_same_as_its_candidates_one_after_another():
    rng = np.random.default_rng(1)
    together = alone = empty(jnp.int32(0), CENTROIDS)
    names = jnp.arange(12, dtype=jnp.int32)
    for _ in range(5):
        fitness, where = batch(rng)
        together, entered = compiled_add(together, names, fitness, where)
        each = []
        for n in range(12):
            one = slice(n, n + 1)
            alone, came = compiled_add(alone, names[one], fitness[one], where[one])
            each += came.tolist()
        assert entered.tolist() == each
        jax.tree.map(np.testing.assert_array_equal, together, alone)


def test_what_is_not_finite_is_never_kept():
    archive = empty(jnp.int32(0), CENTROIDS)
    fitness = jnp.array([np.nan, np.inf, -np.inf, 1.0, 1.0])
    where = jnp.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [np.nan, 0.5], [np.inf, 0.5]])
    archive, entered = compiled_add(archive, jnp.arange(5), fitness, where)
    assert not entered.any()
    assert not filled(archive).any()


def test_descriptors_are_shares_of_their_axes_clipped_at_the_ends():
    axes = (Axis("ratio", 0, 200), Axis("flops", 2e8, 5e9))
    raw = [[5.0, 1e6], [100.0, 2.6e9], [300.0, 6e9], [np.inf, 3e8], [-1.0, np.nan]]
    wanted = [
        [share(value, axis.low, axis.high) for value, axis in zip(row, axes, strict=True)]
        for row in raw
    ]
    np.testing.assert_allclose(placed(jnp.array(raw), axes), wanted, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`axes`.*'ratio' goes from 1 to 1"):
        placed(jnp.zeros((1, 1)), [Axis("ratio", 1, 1)])


def test_centroids_come_from_the_key_and_cut_the_square_into_cells_of_about_one_size():
    key = jax.random.key(4)
    centroids = cvt(key, cells=20, samples=2_000)
    assert centroids.shape == (20, 2)
    np.testing.assert_array_equal(centroids, cvt(jax.random.key(4), cells=20, samples=2_000))
    assert not np.array_equal(centroids, cvt(jax.random.key(5), cells=20, samples=2_000))
    points = jax.random.uniform(jax.random.key(6), (10_000, 2))
    sizes = np.bincount(cell(empty(0, centroids), points), minlength=20) / 10_000
    assert 0.5 / 20 < sizes.min() < sizes.max() < 2 / 20
    np.testing.assert_allclose(grid(1, 2), [[0.5, 0.25], [0.5, 0.75]])


def test_elites_are_drawn_uniformly_from_filled_cells():
    archive = empty(jnp.int32(0), CENTROIDS)
    archive, _ = compiled_add(archive, jnp.array([8, 9]), jnp.array([1.0, 5.0]), CENTROIDS[:2])
    names = drawn(jax.random.key(0), archive, 1_000)
    assert set(names.tolist()) == {8, 9}
    assert abs(int((names == 8).sum()) - 500) < 5 * 250**0.5


class Vectors:
    """Vectors of three numbers; the first two say where, the third how good."""

    def sample(self, key, n):
        return jax.random.uniform(key, (n, 3))

    def evaluate(self, key, asked):
        x = asked.genotypes
        return Measured(x[:, 2] - (x[:, 0] - 0.5) ** 2, jnp.ones(len(x)), x[:, :2])


AXES = (Axis("first", 0, 1), Axis("second", 0, 1))


def vectors(**settings):
    searcher = map_elites(
        Vectors().sample,
        iso_line(),
        lambda asked, measured: measured.extra,
        axes=AXES,
        centroids=grid(4, 4),
        **settings,
    )
    return close(searcher, Vectors())


def test_the_search_keeps_what_it_asked_for_as_a_dict_would():
    search = vectors(batch=8, founders=16)
    state, info = run_scan(search._replace(step=compiled(search.step)), jax.random.key(1), 30)
    oracle = Elites(grid(4, 4).tolist())
    asked = np.asarray(info["asked"].genotypes).reshape(-1, 3)
    for name, (x, fitness) in enumerate(
        zip(asked, np.asarray(info["measured"].fitness).ravel(), strict=True)
    ):
        oracle.add(name, float(fitness), x[:2].tolist())
    archive = state.searcher.archive
    for at, (name, fitness, _) in oracle.cells.items():
        np.testing.assert_array_equal(archive.genotypes[at], asked[name])
        assert float(archive.fitness[at]) == np.float32(fitness)
    assert int(state.searcher.asked) == len(asked) == 240
    assert np.flatnonzero(filled(archive)).tolist() == sorted(oracle.cells)
    born = np.asarray(info["measured"].fitness)
    assert born[-1].mean() > born[:2].mean() + 0.1, "children are no better than founders"


def test_children_lie_near_the_line_between_two_elites_and_within_bounds():
    vary = iso_line(iso=0.0, line=0.5, low=-9.0, high=9.0)
    x, y = jnp.array([0.1, 0.9]), jnp.array([0.3, 0.5])
    for key in jax.random.split(jax.random.key(0), 5):
        child = vary(key, x, y)
        clipped = iso_line(iso=0.0, line=0.5, low=0.1, high=0.9)(key, x, y)
        np.testing.assert_allclose(clipped, np.clip(child, 0.1, 0.9))
        step = np.asarray(child - x)
        assert np.any(step != 0)
        np.testing.assert_allclose(step[1], -2 * step[0], atol=1e-6)


def test_many_seeds_run_side_by_side_as_they_do_alone():
    search, keys = vectors(batch=4, founders=4), jax.random.split(jax.random.key(2), 2)
    states, _ = run_scan(over_seeds(search), keys, 5)
    alone, _ = run_scan(search, keys[1], 5)
    jax.tree.map(
        lambda many, one: np.testing.assert_allclose(many[1], one, rtol=1e-6), states, alone
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "`batch` and `founders` must be positive, not 0 and 64"),
        ({"founders": 0}, "`batch` and `founders` must be positive, not 64 and 0"),
        ({"centroids": grid(3)}, r"`centroids` must be \[K, 2\].*got \[3, 1\]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    settings = {"axes": AXES, "centroids": grid(2, 2)} | settings
    with pytest.raises(ValueError, match=message):
        map_elites(Vectors().sample, iso_line(), lambda asked, measured: measured.extra, **settings)


def test_a_space_that_is_never_measured_is_sampled_on():
    def asked_after(state, key):
        return searcher.ask(key, state)[0].genotypes

    searcher = map_elites(
        lambda key, n: jax.random.randint(key, (n,), 5, 9),
        lambda key, elite, other: elite,
        lambda asked, measured: jnp.zeros((2, 2)),
        axes=AXES,
        centroids=grid(2, 2),
        batch=2,
        founders=2,
    )
    state = searcher.init(jax.random.key(0))
    failed = Measured(jnp.full(2, -jnp.inf), jnp.ones(2))
    state = searcher.tell(state, Asked(jnp.array([5, 6]), jnp.full(2, -1)), failed)
    assert int(state.asked) == 2
    assert (asked_after(state, jax.random.key(1)) >= 5).all()
