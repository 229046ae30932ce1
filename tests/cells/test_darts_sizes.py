"""Parameters of published cells and networks, exactly."""

import jax
import jax.numpy as jnp
import pytest

from jaxnas.cells import darts_space, nasnet_space
from jaxnas.cells.darts_net import network, params
from jaxnas.nn.network import count_params

CIFAR = {
    "DARTS_V1": 3_169_414,
    "DARTS_V2": 3_349_342,
    "PC_DARTS_cifar": 3_634_678,
    "DrNAS_cifar10": 4_099_294,
    "NASNet": 3_830_950,
    "AmoebaNet": 3_145_078,
}
AUXILIARY = {"DARTS_V2": 476_426, "NASNet": 457_994, "AmoebaNet": 457_994}
SMALL = {"DARTS_V1": 232_890, "DARTS_V2": 246_106, "NASNet": 333_946, "AmoebaNet": 326_330}
IMAGENET = {"DARTS_V1": 4_510_432, "DARTS_V2": 4_718_752}


def named(name):
    space = darts_space if name in darts_space.NAMED else nasnet_space
    return space.from_text(name)


@pytest.mark.parametrize("name", CIFAR)
def test_the_cifar_network_has_the_published_size(name):
    assert params(named(name), classes=10) == CIFAR[name]


@pytest.mark.parametrize("name", AUXILIARY)
def test_the_auxiliary_classifier_has_the_published_size(name):
    assert params(named(name), classes=10, auxiliary=True) == CIFAR[name] + AUXILIARY[name]


@pytest.mark.parametrize("name", SMALL)
def test_the_small_network_has_the_published_size(name):
    assert params(named(name), classes=10, channels=16, layers=8) == SMALL[name]


@pytest.mark.parametrize("name", IMAGENET)
def test_the_imagenet_network_has_the_published_size(name):
    size = params(named(name), classes=1000, channels=48, layers=14, stem="imagenet")
    assert size == IMAGENET[name]


def test_the_size_of_an_array_is_that_of_its_text():
    genotype = named("DARTS_V2")
    how = {"classes": 10, "channels": 16, "layers": 8}
    assert darts_space.params(darts_space.encode(genotype), **how) == SMALL["DARTS_V2"]


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7, 14])
def test_a_chain_of_any_length_can_be_built(layers):
    """Reductions stand at a third and two thirds, however short the chain."""
    net = network(named("DARTS_V1"), classes=3, channels=4, layers=layers, auxiliary=True)
    x = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    (logits, side), _ = jax.eval_shape(lambda v: net.apply(v, x, True), variables)
    assert logits.shape == side.shape == (2, 3)
    assert count_params(variables) > 0
