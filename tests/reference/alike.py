"""Whether two trees of arrays hold the same: structure, types, shapes, numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def plain(leaf):
    """A leaf as numpy; a key as its data."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return jax.device_get(leaf)


def compare(ours, theirs, tolerance):
    """Integers exactly, floats within a tolerance (0: bit for bit), types and shapes always."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(partial(compare_leaf, tolerance=tolerance), ours, theirs)


def compare_leaf(ours, theirs, tolerance):
    ours, theirs = plain(ours), plain(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if tolerance and np.issubdtype(ours.dtype, np.floating):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(ours, theirs)
