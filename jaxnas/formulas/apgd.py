"""Attacks that are no rules of the grammar, to compare found rules with.

APGD: Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks", ICML 2020, arXiv:2003.01690. Momentum, and for each image a step size that
is halved at checkpoints where the loss rose too rarely or did not improve; the image then returns
to its best point. Steps are checked as soon as the point of the checkpoint is known.

Momentum PGD: Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018, arXiv:1710.06081.
The gradient of each image is divided by its l1 norm, which no symbol of the grammar can see, before
it is summed up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnas.core import compiled
from jaxnas.formulas.attack import EPSILON, RATES, Target, attack, projected, start
from jaxnas.formulas.rules import Rule
from jaxnas.formulas.training import Runs, prepare, train

ALPHA = 0.75  # share of the step against momentum
RISES = 0.75  # least share of steps on which the loss must rise
TINY = 1e-12


class Seen(NamedTuple):
    """Perturbations of a batch and what the network says there.

    Attributes:
      delta: `[B, H, W, C]`.
      loss: `[B]` cross-entropy.
      gradient: `[B, H, W, C]` of the loss.
    """

    delta: Float[Array, "B H W C"]
    loss: Float[Array, " B"]
    gradient: Float[Array, "B H W C"]


class Walk(NamedTuple):
    """APGD between two steps.

    Attributes:
      here: the present points.
      before: `[B, H, W, C]` the perturbations before them.
      best: those of greatest loss.
      size: `[B]` step size.
      rises: `[B]` steps since the last checkpoint on which the loss rose.
      halved: `[B]` whether the last checkpoint halved the step size.
      record: `[B]` greatest loss at the last checkpoint.
      fooled: `[B]` whether any point fooled the network.
    """

    here: Seen
    before: Float[Array, "B H W C"]
    best: Seen
    size: Float[Array, " B"]
    rises: Int[Array, " B"]
    halved: Bool[Array, " B"]
    record: Float[Array, " B"]
    fooled: Bool[Array, " B"]


def apgd(
    on: Target,
    key: Key[Array, ""],
    *,
    steps: int = 100,
    batch: int = 400,
    epsilon: float = EPSILON,
) -> Walk:
    """Attacks the batch that the attack of a rule would start from under this key.

    Args:
      on: what is attacked.
      key: draws the batch and where its points start.
      steps: gradients that are followed.
      batch: images.
      epsilon: radius of the ball, in units of [0, 1].
    """
    delta, progress = start(on, key, min(batch, len(on.y)), epsilon)
    x, y = on.batch(progress.index)
    here, fooled = _look(on, x, delta, y)
    count = jnp.zeros(len(y), jnp.int32)
    first = Walk(
        here,
        delta,
        here,
        jnp.full(len(y), 2 * epsilon),
        count,
        count > 0,
        here.loss,
        fooled,
    )

    def step(walk: Walk, at: tuple[Array, Array]) -> tuple[Walk, None]:
        momentum, window = at
        moved = _stepped(walk, x, epsilon, momentum)
        here, fooled = _look(on, x, moved, y)
        best = _chosen(here.loss > walk.best.loss, here, walk.best)
        rises = walk.rises + (here.loss > walk.here.loss)
        walk = walk._replace(
            here=here, before=walk.here.delta, best=best, rises=rises, fooled=walk.fooled | fooled
        )
        return jax.lax.cond(window > 0, _checked, lambda walk, _: walk, walk, window), None

    ends = checkpoints(steps)
    windows = dict(zip(ends, [b - a for a, b in zip([0, *ends], ends, strict=False)], strict=True))
    sizes = jnp.asarray([windows.get(k, 0) for k in range(1, steps + 1)], jnp.float32)
    return jax.lax.scan(step, first, (jnp.arange(steps) > 0, sizes))[0]


def checkpoints(steps: int) -> list[int]:
    """Steps after which step sizes are looked at: 22 % on, then ever sooner, 6 % at the least."""
    share, last = 22, 0
    ends: list[int] = []
    while share <= 100:
        ends.append(-(-share * steps // 100))
        share, last = share + max(share - last - 3, 6), share
    return sorted(set(ends))


def _look(on: Target, x: Array, delta: Array, y: Array) -> tuple[Seen, Array]:
    def total(delta: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = on.net.apply(on.net.variables, x + delta)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]
        return losses.sum(), (losses, logits.argmax(-1) != y)

    (_, (losses, fooled)), gradient = jax.value_and_grad(total, has_aux=True)(delta)
    return Seen(delta, losses, gradient), fooled


def _stepped(walk: Walk, x: Array, epsilon: float, momentum: Array) -> Array:
    """Algorithm 1, lines 3, 7 and 8; the first step knows no momentum."""
    d = walk.here.delta
    z = projected(d + jax.vmap(jnp.multiply)(walk.size, jnp.sign(walk.here.gradient)), x, epsilon)
    mixed = projected(d + ALPHA * (z - d) + (1 - ALPHA) * (d - walk.before), x, epsilon)
    return jnp.where(momentum, mixed, z)


def _checked(walk: Walk, window: Array) -> Walk:
    """Algorithm 1, lines 12 to 15."""
    rare = walk.rises < RISES * window
    halve = rare | (~walk.halved & (walk.best.loss <= walk.record))
    return walk._replace(
        here=_chosen(halve, walk.best, walk.here),
        size=jnp.where(halve, walk.size / 2, walk.size),
        rises=jnp.zeros_like(walk.rises),
        halved=halve,
        record=walk.best.loss,
    )


def _chosen(mask: Array, new: Seen, old: Seen) -> Seen:
    return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(mask, a, b), new, old)


def momentum_pgd(batch: int, decay: float = 1.0) -> Rule:
    """The rule of momentum PGD, for a batch of so many images."""

    def step(memory: Any, w: Array, raw: Array, g: Array, *rest: Any) -> tuple[Array, Any]:
        del w, raw, rest
        each = g.reshape(*g.shape[:-1], batch, -1)
        memory = decay * memory + each / jnp.maximum(jnp.abs(each).sum(-1, keepdims=True), TINY)
        return jnp.sign(memory).reshape(g.shape), memory

    return Rule(lambda w: jnp.zeros((*w.shape[:-1], batch, w.shape[-1] // batch)), step)


def success_rates(
    on: Target,
    key: Key[Array, ""],
    *,
    steps: int = 100,
    batch: int = 400,
    seeds: int = 25,
    epsilon: float = EPSILON,
    rates_on: Target | None = None,
) -> dict[str, Float[Array, " seeds"]]:
    """What the attacks of this file reach, with the budget and the batches that rules have.

    Args:
      on: what is attacked.
      key: draws a batch for each seed, and one on which momentum PGD chooses its rate.
      steps: of the attacks.
      batch: images of a seed.
      seeds: batches.
      epsilon: radius of the ball, in units of [0, 1].
      rates_on: what the rate is chosen on; `None` for `on`.

    Returns:
      By the name of the attack the success rate on each batch.
    """
    key_rate, key_seeds = jax.random.split(key)
    keys = jax.random.split(key_seeds, seeds)
    walk = compiled(
        lambda key: apgd(on, key, steps=steps, batch=batch, epsilon=epsilon).fooled.mean()
    )

    def with_momentum(target: Target, rates: Array, keys: Key[Array, " R"]) -> Array:
        size = min(batch, len(target.y))
        task = attack(target, steps=steps, batch=size, epsilon=epsilon, bound=0.0)
        run = compiled(lambda rates, runs: train(task, momentum_pgd(size), rates, runs).score)
        runs: Runs = jax.vmap(lambda key: prepare(task, key))(keys)
        return run(rates, runs)

    rates = jnp.asarray(RATES, jnp.float32)
    first = with_momentum(rates_on or on, rates, jnp.broadcast_to(key_rate, rates.shape))
    best = jnp.full(seeds, rates[first.argmax()])
    return {
        "APGD": jnp.stack([walk(key) for key in keys]),
        "momentum PGD": with_momentum(on, best, keys),
    }
