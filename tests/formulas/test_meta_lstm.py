"""Meta-LSTM: on power laws it knows more than the last value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.curves import power_laws as of_length

from jaxnas.formulas.meta_lstm import fit, foretell, start

pytestmark = pytest.mark.usefixtures("quick_compile")
KNOWN, LENGTH = 6, 16


def power_laws(seed, n):
    return of_length(seed, n, LENGTH)


@pytest.fixture(scope="module")
def meta():
    return fit(start(jax.random.key(0)), power_laws(0, 60), KNOWN, steps=300)


def test_it_foretells_power_laws_better_than_their_last_value_does(meta):
    curves = power_laws(1, 40)
    told = np.asarray(foretell(meta, curves[:, :KNOWN], LENGTH - KNOWN))
    assert told.shape == (40, LENGTH - KNOWN)
    error = np.abs(told[:, -1] - curves[:, -1]).mean()
    level = np.abs(curves[:, KNOWN - 1] - curves[:, -1]).mean()
    assert error < 0.4 * level


def test_shifting_a_curve_shifts_what_is_foretold(meta):
    begun = power_laws(2, 5)[:, :KNOWN]
    np.testing.assert_allclose(
        foretell(meta, begun + 7, 3), np.asarray(foretell(meta, begun, 3)) + 7, atol=1e-4
    )


def test_it_goes_on_learning_where_it_stopped_and_curves_that_are_not_whole_change_nothing(meta):
    curves, nothing = power_laws(3, 60), np.full((7, LENGTH), np.nan, np.float32)
    nothing[:, :KNOWN] = 1.0
    once = fit(start(jax.random.key(1)), curves, KNOWN, steps=300)
    beside = fit(start(jax.random.key(1)), np.concatenate([nothing, curves]), KNOWN, steps=300)
    told = [foretell(one, jnp.asarray(curves[:, :KNOWN]), LENGTH - KNOWN) for one in (once, beside)]
    np.testing.assert_allclose(*told, atol=1e-3)

    def error(meta):
        return float(jnp.abs(foretell(meta, curves[:, :KNOWN], 10) - curves[:, KNOWN:]).mean())

    assert error(fit(once, curves, KNOWN, steps=300)) < error(once)


def test_one_that_has_learned_nothing_foretells_the_last_value():
    begun = jnp.asarray(power_laws(4, 3)[:, :KNOWN])
    told = foretell(start(jax.random.key(2)), begun, 4)
    np.testing.assert_array_equal(told, np.repeat(begun[:, -1:], 4, 1))


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ValueError, match=r"`known` must be in 1 \.\.\. 15"):
        fit(start(jax.random.key(0)), power_laws(0, 5), LENGTH)
    with pytest.raises(ValueError, match="at least 2 curves finite, but got 3 and 0"):
        fit(start(jax.random.key(0)), np.full((4, LENGTH), np.nan, np.float32), 3)
