"""PC-DARTS: edges into a node compete by a softmax of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_supernet import CHOICES, TWO_KINDS

from jaxnas.oneshot.pc_darts import edge_softmax, pc_darts

pytestmark = pytest.mark.usefixtures("quick_compile")


def slow_edge_softmax(betas, alive, nodes):
    shares = np.zeros(len(betas))
    for e, node in enumerate(nodes):
        rivals = [i for i in range(len(betas)) if nodes[i] == node and alive[i]]
        if alive[e]:
            shares[e] = np.exp(betas[e]) / sum(np.exp(betas[i]) for i in rivals)
    return shares


def test_edges_share_what_their_node_gets():
    rng = np.random.default_rng(0)
    for choices in (CHOICES, TWO_KINDS):
        n = len(choices.nodes)
        for _ in range(5):
            betas, alive = 3 * rng.normal(size=n), rng.random(n) < 0.7
            wanted = slow_edge_softmax(betas, alive, choices.nodes)
            got = edge_softmax(jnp.asarray(betas, jnp.float32), jnp.asarray(alive), choices.nodes)
            np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_both_kinds_of_parameters_start_small_and_follow_the_gradient():
    method = pc_darts(TWO_KINDS, learning_rate=0.1, weight_decay=0.0)
    alphas, mask = method.start(jax.random.key(0)), jnp.ones(TWO_KINDS.shape, bool)
    assert {name: leaf.shape for name, leaf in alphas.items()} == {"ops": (10, 5), "edges": (10,)}
    assert max(float(jnp.abs(leaf).max()) for leaf in alphas.values()) < 5e-3

    def loss(alphas):
        mix = method.mix(jax.random.key(1), alphas, mask)
        return -(mix.ops[0, 2] * mix.edges[0])

    state = method.alphas_tx.init(alphas)
    for _ in range(20):
        update, state = method.alphas_tx.update(jax.grad(loss)(alphas), state, alphas)
        alphas = jax.tree.map(jnp.add, alphas, update)
    strength = method.strength(alphas, mask)
    assert int(strength.ops[0].argmax()) == 2
    assert float(strength.edges[0]) > 0.9 > 0.1 > float(strength.edges[1])
    np.testing.assert_allclose(strength.edges[2:5], 1 / 3, atol=0.01)  # another node
