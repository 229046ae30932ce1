"""Meta-LSTM: on power laws it knows more than the last value, and it charges what was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked
from jaxnas.formulas.meta_lstm import Foretold, fit, foretell
from jaxnas.formulas.node_judge import NodeJudge
from jaxnas.formulas.recurrent import baseline, nodes
from jaxnas.formulas.sequence_nets import Size
from jaxnas.formulas.sequence_tasks import find

pytestmark = pytest.mark.usefixtures("quick_compile")
KNOWN, LENGTH = 6, 16


def power_laws(seed, n):
    """`a + b t^-c` with different levels, heights and exponents."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(3, 5, n), rng.uniform(0.5, 3, n), rng.uniform(0.3, 1.2, n)
    t = np.arange(1, LENGTH + 1)
    return (a[:, None] + b[:, None] * t ** -c[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def meta():
    return fit(jax.random.key(0), power_laws(0, 60), KNOWN, steps=300)


def test_it_foretells_power_laws_better_than_their_last_value_does(meta):
    curves = power_laws(1, 40)
    told = np.asarray(foretell(meta, curves[:, :KNOWN]))
    assert told.shape == (40, LENGTH - KNOWN)
    error = np.abs(told[:, -1] - curves[:, -1]).mean()
    level = np.abs(curves[:, KNOWN - 1] - curves[:, -1]).mean()
    assert error < 0.4 * level


def test_shifting_a_curve_shifts_what_is_foretold(meta):
    begun = power_laws(2, 5)[:, :KNOWN]
    np.testing.assert_allclose(
        foretell(meta, begun + 7), np.asarray(foretell(meta, begun)) + 7, atol=1e-4
    )


def test_a_judge_that_foretells_trains_less_and_whole_budgets_are_measured():
    task = find("toy", streams=4, segment=10, words=12, tokens=300)
    grammar, length = nodes(), 3
    judge = NodeJudge(task, grammar, Size(hidden=4, epochs=length), seeds=1)
    meta = fit(jax.random.key(0), power_laws(0, 20)[:, :length], 1, steps=20)
    tapes = jnp.asarray(np.stack([baseline(grammar, "LSTM")] * 2))
    key = jax.random.key(3)
    told = Foretold(judge, meta).evaluate(key, Asked(tapes, jnp.array([-1, length])))
    whole = judge.evaluate(key, Asked(tapes, jnp.array([-1, -1])))
    assert told.cost.tolist() == [1, 3]
    assert float(told.fitness[1]) == pytest.approx(float(whole.fitness[1]), rel=1e-5)
    begun = told.extra.curve[0, 0, :1]
    np.testing.assert_allclose(begun, whole.extra.curve[0, 0, :1], rtol=1e-5)
    rest = foretell(meta, begun[None])[0]
    np.testing.assert_allclose(told.extra.curve[0, 0, 1:], rest, rtol=1e-5)
    assert float(told.fitness[0]) == pytest.approx(-min(*begun, *rest), rel=1e-5)


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ValueError, match=r"`known` must be in 1 \.\.\. 15"):
        fit(jax.random.key(0), power_laws(0, 5), LENGTH)
    with pytest.raises(ValueError, match="at least 2 curves finite, but got 3 and 0"):
        fit(jax.random.key(0), np.full((4, LENGTH), np.nan, np.float32), 3)
