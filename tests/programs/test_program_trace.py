"""What a source becomes: programs and sizes, or a reason that a model can be told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import export

from jaxnas.programs.sandbox.functions import keys_by_order
from jaxnas.programs.sandbox.program import Task, direction, examined, trace
from jaxnas.programs.sandbox.verdict import Rejected
from jaxnas.train.portable import Refused, opened, refusal

TASK = Task((12,), 4, batch=6, eval_batch=5, platforms=("cpu",))
HEAD = "import flax.linen as nn\nimport jax\nimport jax.numpy as jnp\n"


def source(*lines, mode=""):
    body = "".join(f"        {line}\n" for line in lines)
    return f"{HEAD}\nclass Model(nn.Module):\n    @nn.compact\n    def __call__(self, x{mode}):\n{body}"


LINEAR = source("return nn.Dense(4)(x)")
FULL = source(
    "x = nn.Conv(5, (3,))(x[..., None])",
    "x = nn.BatchNorm(use_running_average=not train)(nn.max_pool(x, (2,), (2,)))",
    "x = nn.Dropout(0.5, deterministic=not train)(nn.gelu(x))",
    "return nn.Dense(4)(x.reshape(len(x), -1))",
    mode=", train",
)
CALLS = {
    "pure_callback": "x += jax.pure_callback(lambda v: v, x, x)",
    "io_callback": "jax.experimental.io_callback(print, None, x[0, 0])",
    "debug": "jax.debug.print('{}', x[0, 0])",
    "ffi_call": "x += jax.ffi.ffi_call('steal', jax.ShapeDtypeStruct(x.shape, x.dtype))(x)",
}


def rejected(text, task=TASK):
    with pytest.raises(Rejected) as caught:
        examined(text, task)
    return caught.value.failure, caught.value.message


@pytest.fixture(scope="module")
def full():
    return trace(FULL, TASK._replace(platforms=("cpu", "cuda", "tpu")))


def test_sizes_are_those_counted_by_hand(full):
    conv, norm, dense = 3 * 5 + 5, 2 * 5, 6 * 5 * 4 + 4
    assert full.params == conv + norm + dense
    assert full.flops == 2 * (12 * 3 * 5 + 30 * 4)
    assert full.depth == 5  # convolution, pooling, norm, dropout, dense
    assert full.width == 5


def test_a_recurrent_layer_is_one_and_its_steps_all_count():
    gru = "y = nn.Bidirectional(nn.RNN(nn.GRUCell(3)), nn.RNN(nn.GRUCell(3)))(x[..., None])"
    found, _ = examined(source(gru, "return nn.Dense(4)(y.reshape(len(y), -1))"), TASK)
    assert (found.depth, found.width) == (2, 4)
    cell = 3 * (1 * 3 + 3) + 3 * 3 * 3 + 3
    assert found.params == 2 * cell + 12 * 6 * 4 + 4
    assert found.flops == 2 * (2 * 12 * (3 * 3 + 3 * 9) + 72 * 4)


def test_the_orthogonal_weights_of_recurrent_layers_can_be_drawn_for_several_runs():
    gru = source("y = nn.RNN(nn.GRUCell(3))(x[..., None])", "return nn.Dense(4)(y[:, -1])")
    init = opened(trace(gru, TASK._replace(runs=2)).programs).init
    weights = init.call(np.array([[0, 1], [0, 2]], np.uint32))[0]
    kernels = np.asarray(weights)[:, 3:21].reshape(2, 2, 3, 3)  # after a bias
    np.testing.assert_allclose(
        kernels @ kernels.swapaxes(2, 3), np.tile(np.eye(3), (2, 2, 1, 1)), atol=1e-5
    )


def test_weights_made_in_the_call_are_constants_of_the_program():
    fixed = "cell = nn.Dense(3); y = cell.apply(cell.init(jax.random.PRNGKey(0), x), x)"
    parts = opened(trace(source(fixed, "return nn.Dense(4)(y)"), TASK).programs)
    assert sum(np.prod(a.shape) for a in parts.init.out_avals[:1]) == 3 * 4 + 4


def test_the_programs_are_for_all_three_kinds_of_devices_and_fit_each_other(full):
    parts = opened(full.programs)
    assert (parts.runs, parts.batch, parts.eval_batch) == (0, 6, 5)
    assert parts.step.platforms == ("cpu", "cuda", "tpu")
    assert parts.evaluate.out_avals[0].shape == (5, 4)


def test_new_names_give_the_very_same_weights():
    renamed = FULL.replace("Model", "Net").replace("nn.Dense(4)", "nn.Dense(4, name='a')")
    task = TASK._replace(runs=2)
    keys = np.array([[0, 1], [0, 2]], np.uint32)
    first, second = (opened(trace(s, task).programs).init.call(keys) for s in (FULL, renamed))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.array_equal(first[0][0], first[0][1])


def test_layers_of_one_shape_do_not_start_alike():
    text = source("a, b = nn.Dense(4), nn.Dense(4)", "return a(x) + b(x)")
    [weights, *_] = opened(trace(text, TASK).programs).init.call(np.zeros(2, np.uint32))
    assert not np.array_equal(weights[:48], weights[52:100])


def test_keys_follow_names_again_afterwards():
    from flax import linen as nn

    def kernel():
        return nn.Dense(2).init(jax.random.key(0), jnp.ones((1, 3)))["params"]["kernel"]

    before = kernel()
    with keys_by_order():
        assert not np.array_equal(kernel(), before)
    np.testing.assert_array_equal(kernel(), before)


@pytest.mark.parametrize("mode", ["train", "training", "deterministic"])
def test_a_module_is_told_whether_it_trains(mode):
    drops = "mode" if mode == "deterministic" else "not mode"
    text = source(
        f"x = nn.Dropout(0.9, deterministic={drops.replace('mode', mode)})(x)",
        "return nn.Dense(4)(x)",
        mode=f", {mode}",
    )
    assert "random_bits" in str(traced_gradient(text))
    assert "random_bits" not in str(traced_logits(text))


def test_layers_written_for_training_alone_are_judged_all_the_same():
    text = source(
        "x = nn.BatchNorm(use_running_average=False)(x)",
        "return nn.Dense(4)(nn.Dropout(0.5, deterministic=False)(x))",
    )
    parts = opened(trace(text, TASK._replace(runs=1)).programs)
    state = parts.init.call(np.array([[0, 1]], np.uint32))
    x = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    first, again, shifted = (parts.evaluate.call(state, x + by) for by in (0, 0, 7))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, shifted, atol=1e-3)  # normalised by the batch at hand


def parts_of(text):
    return examined(text, TASK)[1]


def shapes(size):
    return jax.ShapeDtypeStruct((size, 12), jnp.float32)


def traced_gradient(text):
    parts = parts_of(text)
    y, key = jax.ShapeDtypeStruct((6,), jnp.int32), jax.ShapeDtypeStruct((2,), jnp.uint32)
    return parts.gradient.trace(parts.params, parts.rest, shapes(6), y, key).jaxpr


def traced_logits(text):
    parts = parts_of(text)
    return parts.logits.trace(parts.params, parts.rest, shapes(5)).jaxpr


@pytest.mark.parametrize("call", CALLS)
def test_calls_out_of_xla_are_forbidden(call):
    failure, message = rejected(source(CALLS[call], "return nn.Dense(4)(x)"))
    assert failure == "forbidden"
    assert call.split("_")[0] in message


WRONG = {
    "no python": ("def (", "parse", "line 1"),
    "nothing in it": ("x = 3", "parse", "class `Model"),
    "two to choose from": (
        LINEAR.replace("Model", "A") + LINEAR.replace("Model", "B"),
        "parse",
        "",
    ),
    "raises": (LINEAR + "1 / 0\n", "import", "ZeroDivisionError"),
    "exits": (LINEAR + "raise SystemExit(3)\n", "import", "SystemExit"),
    "shape": (source("return nn.Dense(5)(x)"), "shape", r"must give float scores (6, 4)"),
    "tuple": (source("return nn.Dense(4)(x), x"), "shape", "a tuple"),
    "whole numbers": (
        source("return nn.Dense(4)(x).argmax(-1, keepdims=True) + jnp.arange(4)"),
        "shape",
        "int32",
    ),
    "argument": (LINEAR.replace("self, x", "self, x, mask"), "shape", "mask"),
    "line": (
        source("y = x.reshape(7)", "return nn.Dense(4)(x)"),
        "shape",
        "line 8: `y = x.reshape(7)`",
    ),
    "field": (LINEAR.replace("    @nn", "    size: int\n    @nn"), "shape", "size"),
    "value": (source("if x.sum() > 0: x = 2 * x", "return nn.Dense(4)(x)"), "shape", "Tracer"),
    "memory": (LINEAR + "raise MemoryError\n", "memory", ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what):
    text, failure, part = WRONG[what]
    found, message = rejected(text)
    assert found == failure
    assert part.replace("(6, 4)", "") in message.replace("(5, 4)", "").replace("(1, 4)", "")


def test_a_helper_class_is_not_the_model():
    helper = LINEAR.replace("Model", "Head").replace("Dense(4)", "Dense(8)")
    whole = "class Net(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n        return nn.Dense(4)(Head()(x))\n"
    assert examined(helper + whole, TASK)[0].params == 12 * 8 + 8 + 8 * 4 + 4


def test_optimizers_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"`optimizer` must be one of adamw, sgd, but got 'lion'"):
        direction(TASK._replace(optimizer="lion"))


def exported(f, *shapes):
    return export(jax.jit(f), platforms=("cpu",))(*shapes)


def test_other_calls_than_those_of_initialisers_are_refused():
    square = jax.ShapeDtypeStruct((3, 3), jnp.float32)
    f = jax.ffi.ffi_call("steal", square)
    unchecked = export(
        jax.jit(f),
        platforms=("cpu",),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("steal")],
    )
    assert refusal(unchecked(square)) == "calls steal outside of XLA, or not as JAX does"


def test_the_other_side_refuses_what_it_cannot_read_or_what_does_not_fit(full):
    with pytest.raises(Refused, match=r"lacks \{'step'\}"):
        opened({"init": b"", "evaluate": b""})
    with pytest.raises(Refused, match=r"must be of `jax\.export`"):
        opened(dict.fromkeys(full.programs, b"no program"))
    other = trace(LINEAR, TASK).programs
    with pytest.raises(Refused, match="must agree, but they take"):
        opened({**full.programs, "init": other["init"]})
    larger = trace(LINEAR, TASK._replace(eval_batch=9, batch=7, shape=(13,))).programs
    with pytest.raises(Refused, match="must agree, but the state of `init`"):
        opened({**other, "init": larger["init"]})
    flat = source("return nn.Dense(4)(x.reshape(len(x), -1))")
    long, square = (trace(flat, TASK._replace(shape=s)).programs for s in ((12,), (4, 3)))
    with pytest.raises(Refused, match="must agree, but the batch"):
        opened({**long, "evaluate": square["evaluate"]})
