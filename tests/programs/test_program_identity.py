"""Two sources that compute the same are one candidate; whatever changes the computation is not."""

import pytest

from jaxnas.programs.sandbox.program import Task, examined

TASK = Task((12,), 4, batch=6, eval_batch=5, platforms=("cpu",))
HEAD = "import flax.linen as nn\nimport jax\nimport jax.numpy as jnp\n"

NET = (
    HEAD
    + """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = x[..., None]
        left = nn.Conv(5, (3,))(x)
        right = nn.Conv(5, (3,))(nn.tanh(x))
        x = nn.relu(left + nn.tanh(right))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(4, kernel_init=nn.initializers.lecun_normal())(x.reshape(len(x), -1))
"""
)

SAME = {
    "formatting": NET.replace("(3,)", "( 3 , )").replace(
        "        x = nn.relu", "\n        # rectified\n        x = nn.relu"
    ),
    "other names": NET.replace("left", "a").replace("right", "b").replace("Model", "Network"),
    "names of layers": NET.replace("nn.Dense(4, ", "nn.Dense(4, name='head', ").replace(
        "nn.Conv(5, (3,))(x)", "nn.Conv(5, (3,), name='zz')(x)"
    ),
    "order of statements": NET.replace(
        "        left = nn.Conv(5, (3,))(x)\n        right = nn.Conv(5, (3,))(nn.tanh(x))\n",
        "        right = nn.Conv(5, (3,))(nn.tanh(x))\n        left = nn.Conv(5, (3,))(x)\n",
    ),
    "what is not used": NET.replace(
        "        x = nn.relu", "        unused = jnp.sin(x) + 3\n        x = nn.relu"
    ),
    "setup": HEAD
    + """
class Net(nn.Module):
    def setup(self):
        self.last = nn.Dense(4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm()
        self.second, self.first = nn.Conv(5, (3,)), nn.Conv(5, 3)

    def __call__(self, x, *, deterministic):
        x = x[:, :, None]
        x = nn.relu(self.first(x) + nn.tanh(self.second(nn.tanh(x))))
        x = self.norm(x, use_running_average=deterministic)
        return self.last(self.drop(x, deterministic=deterministic).reshape(x.shape[0], -1))
""",
    "a class of its own": HEAD
    + """
class Block(nn.Module):
    width: int
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.width, (3,))(x) + nn.tanh(nn.Conv(self.width, (3,))(nn.tanh(x))))

class Whole(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train)(Block(5)(x[..., None]))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(4)(x.reshape(len(x), -1))
""",
}

OTHER = {
    "kernel size": ("(3,))(x)", "(5,))(x)"),
    "activation": ("nn.relu(", "nn.gelu("),
    "initialiser": ("lecun_normal", "glorot_normal"),
    "scale of an initialiser": (
        "lecun_normal()",
        "variance_scaling(2.0, 'fan_in', 'truncated_normal')",
    ),
    "dropout rate": ("Dropout(0.5", "Dropout(0.4"),
    "momentum of a norm": ("BatchNorm(", "BatchNorm(momentum=0.9, "),
    "a constant": ("left + ", "left + 0.5 * "),
    "features": ("nn.Conv(5, (3,))(x)", "nn.Conv(1, (3,))(x)"),
    "gradient": ("nn.tanh(right)", "jax.lax.stop_gradient(nn.tanh(right))"),
    "seed of a constant": ("left + ", "jax.random.normal(jax.random.key(1), (5,)) + left + "),
}


def identity(source):
    return examined(source, TASK)[0].identity


@pytest.fixture(scope="module")
def net():
    return identity(NET)


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_computation_keeps_the_identity(net, change):
    assert SAME[change] != NET
    assert identity(SAME[change]) == net


@pytest.mark.parametrize("change", OTHER)
def test_what_changes_the_computation_changes_the_identity(net, change):
    old, new = OTHER[change]
    changed = NET.replace(old, new, 1)
    assert changed != NET
    assert identity(changed) != net


def layers(call):
    return f"{HEAD}\nclass Model(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n{call}"


TWICE = layers("        f = nn.Dense(12)\n        return nn.Dense(4)(f(nn.relu(f(x))))\n")
ONCE = layers("        return nn.Dense(4)(nn.Dense(12)(nn.relu(nn.Dense(12)(x))))\n")


def test_a_shared_layer_is_not_two_layers():
    assert identity(TWICE) != identity(ONCE)


CELL = """
class Cell(nn.RNNCellBase):
    @nn.compact
    def __call__(self, carry, x):
        a = nn.Dense(3, name="{0}")(x)
        b = nn.Dense(3, name="{1}")(carry)
        carry = nn.{2}(a + b)
        return carry, carry

    def initialize_carry(self, key, shape):
        return jnp.zeros((shape[0], 3))

    @property
    def num_feature_axes(self):
        return 1

class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.RNN(Cell(){3})(x[..., None])[:, -1])
"""


def test_names_inside_of_a_scan_do_not_matter_but_what_it_computes_does():
    first = identity(HEAD + CELL.format("a", "b", "tanh", ""))
    assert identity(HEAD + CELL.format("z", "b", "tanh", "")) == first
    assert identity(HEAD + CELL.format("a", "b", "relu", "")) != first
    assert identity(HEAD + CELL.format("a", "b", "tanh", ", reverse=True")) != first


NEST = """        def outer(c, _):
            return jax.lax.scan(lambda d, _: (2 * {0}, None), s, None, length=2)
        s = x.sum(1)
        y = jax.lax.scan(outer, s, None, length=3)[0]
"""
PAIR = {
    "the carry of an outer loop": (NEST.format("d"), NEST.format("c")),
    "the axis of a reduction": tuple(
        f"        y = jax.lax.reduce(x[:, :len(x)], 0.0, lambda a, b: 2 * a + b, ({axis},))\n"
        for axis in (0, 1)
    ),
    "the child of a constant key": tuple(
        f"        k = jax.random.fold_in(jax.random.key(0), {i})\n"
        "        y = x.sum(1) * jax.random.normal(k, ())\n"
        for i in (1, 2)
    ),
}


@pytest.mark.parametrize("what", PAIR)
def test_programs_that_differ_in_one_place_alone_are_two(what):
    one, other = (identity(layers(line + FIXED)) for line in PAIR[what])
    assert one != other


def test_a_function_that_is_compiled_on_its_own_is_the_same_function():
    f = "        f = {}(lambda v: 2 * v + jnp.sin(v))\n        return nn.Dense(4)(f(x))\n"
    assert identity(layers(f.format("jax.jit"))) == identity(layers(f.format("")))


LOOP = "        y = jax.lax.while_loop(lambda v: v[0] < {0}, lambda v: (v[0] + 1, v[1] * {1}), (0, x.sum(1)))[1]\n"
FIXED = "        y = jax.lax.stop_gradient(y)\n        return nn.Dense(4)(x) + y[:, None]\n"


def test_loops_and_branches_are_read():
    loop = identity(layers(LOOP.format(3, 0.5) + FIXED))
    assert identity(layers("        import math\n" + LOOP.format(3, 0.5) + FIXED)) == loop
    assert identity(layers(LOOP.format(4, 0.5) + FIXED)) != loop
    assert identity(layers(LOOP.format(3, 0.6) + FIXED)) != loop
    branch = "        y = jax.lax.cond(x[0, 0] > 0, lambda: x.sum(1), lambda: x.{0}(1))\n"
    assert identity(layers(branch.format("max") + FIXED)) != identity(
        layers(branch.format("min") + FIXED)
    )


def test_the_identity_is_that_of_a_task_whatever_it_runs_on():
    for change, same in ({"weight_decay": 0.1}, False), ({"runs": 2, "platforms": ("tpu",)}, True):
        found = examined(ONCE, TASK._replace(**change))[0].identity
        assert (found == identity(ONCE)) == same


def test_a_chain_of_thousands_of_operations_is_read():
    deep = (
        "        for i in range(1500):\n            x = jnp.sin(x)\n        return nn.Dense(4)(x)\n"
    )
    assert identity(layers(deep)) == identity(layers(deep.replace("i in", "step in")))
