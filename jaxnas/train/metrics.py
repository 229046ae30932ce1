"""What GLUE judges by, as functions that compile: accuracy, F1, Matthews, Spearman.

Accuracy and F1 are shares in [0, 1], correlations lie in [-1, 1]. Unlike scikit-learn and SciPy a
correlation with a constant is 0, not undefined: it is the score of a candidate that answers the
same to everything, and a search must be able to rank it. One answer that is not finite makes a
regression's score NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num


def accuracy(answers: Int[Array, " N"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    """Share of right answers."""
    return (answers == labels).mean(dtype=jnp.float32)


def f1(answers: Int[Array, " N"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    """Harmonic mean of precision and recall of class 1; 0 if neither holds it."""
    both = ((answers == 1) & (labels == 1)).sum()
    either = (answers == 1).sum() + (labels == 1).sum()
    return 2 * both / jnp.maximum(either, 1).astype(jnp.float32)


def matthews(answers: Int[Array, " N"], labels: Int[Array, " N"]) -> Float[Array, ""]:
    """Matthews correlation of two classes, 0 and 1, which is the Pearson correlation of both."""
    return pearson(answers, labels)


def spearman(answers: Float[Array, " N"], labels: Float[Array, " N"]) -> Float[Array, ""]:
    """Pearson correlation of ranks, where equal values share the mean of their ranks."""
    return jnp.where(jnp.isfinite(answers).all(), pearson(ranks(answers), ranks(labels)), jnp.nan)


def pearson(a: Num[Array, " N"], b: Num[Array, " N"]) -> Float[Array, ""]:
    """Correlation of two samples."""
    # Rounding would let a constant deviate from its mean, so constants are told by their range.
    constant = (a.max() - a.min() == 0) | (b.max() - b.min() == 0)
    a, b = (x.astype(jnp.float32) - x.mean(dtype=jnp.float32) for x in (a, b))
    r = (a * b).sum() / (jnp.sqrt((a * a).sum()) * jnp.sqrt((b * b).sum()))
    return jnp.where(constant, 0.0, r)


def ranks(x: Float[Array, " N"]) -> Float[Array, " N"]:
    """Ranks from 1; equal values share the mean of theirs."""
    ordered = jnp.sort(x)
    below, upto = (jnp.searchsorted(ordered, x, side=side) for side in ("left", "right"))
    return (below + upto + 1) / 2
