"""Weights that a network takes over: what is matched, by what names, and that it is another program."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked
from jaxnas.programs import inheritance
from jaxnas.programs.inheritance import Weights, inherited
from jaxnas.programs.judge import REASONS, Judge, Score
from jaxnas.programs.page import pages
from jaxnas.programs.sandbox.program import Task, examined
from jaxnas.programs.sandbox.verdict import Verdict

KEY = jax.random.key(0)
PARENT = (("Conv/0/kernel", (3, 2)), ("Conv/1/kernel", (4,)), ("Dense/0/bias", (2,)))
CHILD = (
    ("Dense/0/kernel", (3,)),
    ("Conv/0/kernel", (3, 2)),
    ("Dense/0/bias", (2,)),
    ("Conv/1/kernel", (2, 2)),
)


def by_hand(layout, parent):
    """Array by array, from a dict of the parent's."""
    arrays, at = {}, 0
    for name, shape in parent.layout:
        size = int(np.prod(shape))
        arrays[name] = parent.values[at : at + size].reshape(shape)
        at += size
    begun = []
    for name, shape in layout:
        fits = name in arrays and arrays[name].shape == shape
        begun += arrays[name].ravel().tolist() if fits else [np.nan] * int(np.prod(shape))
    return begun


def test_arrays_of_equal_name_and_shape_are_taken_over():
    parent = Weights("p", PARENT, np.arange(12, dtype=np.float32))
    np.testing.assert_array_equal(inherited(CHILD, parent), by_hand(CHILD, parent))
    assert np.isfinite(inherited(CHILD, parent)).sum() == 8


def test_what_is_not_finite_or_has_no_parent_is_drawn(monkeypatch):
    values = np.arange(12, dtype=np.float32)
    values[[0, 10]] = np.inf, np.nan
    begun = inherited(CHILD, Weights("p", PARENT, values))
    assert (
        np.isnan(begun).tolist() == [True] * 3 + [True] + [False] * 5 + [True, False] + [True] * 4
    )
    assert np.isnan(inherited(CHILD, None)).all()
    assert inherited((), None) is None
    monkeypatch.setattr(inheritance, "LARGEST", 14)
    assert inherited(CHILD, None) is None


NESTED = """import flax.linen as nn


class Block(nn.Module):
    def setup(self):
        self.first = nn.Conv(2, (3,))
        self.second = nn.Conv(2, (3,), use_bias=False)

    def __call__(self, x):
        return self.second(self.first(x))


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3,), name="entry")(x[..., None])
        x = Block()(x) * self.param("scale", nn.initializers.ones, (2,))
        x = nn.RNN(nn.GRUCell(3))(x)
        return nn.Dense(4)(x.reshape(len(x), -1))
"""


def test_arrays_are_named_by_type_and_number_of_their_layers():
    traced, _ = examined(NESTED, Task((6,), 4, batch=6, eval_batch=5, platforms=("cpu",)))
    names = [name for name, _ in traced.layout]
    assert names[:6] == [
        "Conv/0/kernel",
        "Conv/0/bias",
        "Conv/1/kernel",
        "Conv/1/bias",
        "Conv/2/kernel",
        "Model/0/scale",
    ]
    assert dict(traced.layout)["Conv/2/kernel"] == (3, 2, 2)
    assert len(set(names)) == len(names)
    assert sum(int(np.prod(shape)) for _, shape in traced.layout) == traced.params
    *cell, kernel, bias = names[6:]
    assert all("Dense" in name for name in cell)
    assert kernel.rsplit("/", 2)[0] == bias.rsplit("/", 2)[0] == "Dense"
    renamed = NESTED.replace("entry", "start").replace("Block", "Other")
    assert examined(renamed, Task((6,), 4, platforms=("cpu",)))[0].layout == traced.layout


def check(sources):
    """`conv 3 ab # as ever`: a program with one convolution of three weights, and a remark."""
    return [_verdict(source) for source in sources]


def _verdict(source):
    program = source.partition(" #")[0]
    kind, size, *_ = program.split()
    return Verdict(
        True,
        None,
        "",
        int(size),
        identity=hashlib.sha256(program.encode()).hexdigest(),
        layout=((f"{kind}/0/kernel", (int(size),)),),
        programs={"init": program.encode()},
    )


def train(programs, steps, starts):
    """Learns by adding the length of its name to weights that begin at zero; the best is the score."""
    lengths = [len("".join(one["init"].decode().split()[2:])) for one in programs]
    ended = [
        np.nan_to_num(start) + 1 + length for start, length in zip(starts, lengths, strict=True)
    ]
    return [Score(float(w.max()), 0.0, steps, curve=(1.0,), weights=w) for w in ended]


def told(judge, sources, parents, met):
    pairs = [parent if isinstance(parent, tuple) else (parent, 0) for parent in parents]
    asked = Asked(
        jnp.asarray(pages(sources)),
        jnp.full(len(sources), -1, jnp.int32),
        jnp.asarray(pairs, jnp.int32),
    )
    return judge.evaluate(KEY, asked, np.array(met, np.uint8).reshape(-1, 32))


def reasons(measured):
    return [REASONS[code] for code in measured.failure.tolist()]


def test_a_program_counts_anew_with_weights_of_another_parent():
    memory = {}
    judge = Judge(check, train, steps=5, seeds=["conv 3"], memory=memory)
    first = told(judge, ["conv 3", "conv 3 ab", "dense 3", "conv 3"], [0, 0, 0, 0], [])
    assert reasons(first) == ["", "", "", "duplicate"]
    met = np.asarray(first.extra["identity"])
    assert met[0].tobytes() == hashlib.sha256(b"conv 3").digest()
    sources = ["conv 3 a", "conv 3 a", "conv 3 a", "conv 4", "conv 3 a"]
    second = told(judge, sources, [1, 2, 1, 1, 3], met)
    assert reasons(second) == ["", "", "duplicate", "", ""]
    assert second.fitness.tolist() == [1 + 2, 3 + 2, -np.inf, 1, 2]
    assert len(memory) == 3 + 4
    third = told(judge, ["conv 3"], [6], [*met, *np.asarray(second.extra["identity"])])
    assert third.fitness.tolist() == [6]


def test_a_copy_of_a_parent_is_a_duplicate_whatever_it_would_begin_with():
    memory = {}
    judge = Judge(check, train, steps=5, seeds=["conv 3"], memory=memory)
    first = told(judge, ["conv 3", "dense 3"], [0, 0], [])
    met = [*np.asarray(first.extra["identity"])]
    child = told(judge, ["conv 3 a"], [1], met)
    met += [*np.asarray(child.extra["identity"])]
    copies = ["conv 3", "conv 3 # new words", "conv 3 a", "conv 3 a", "conv 3", "dense 3", "conv 3"]
    parents = [1, 1, 3, (3, 1), (3, 1), (3, 2), 0]
    again = told(judge, copies, parents, met)
    assert reasons(again) == ["duplicate"] * len(copies)
    assert again.cost.tolist() == [0] * len(copies)
    assert len(memory) == 3
    crossed = told(judge, ["conv 3 ab", "conv 3 ab"], [(3, 1), (3, 2)], met)
    assert reasons(crossed) == ["", "duplicate"]
    assert crossed.fitness.tolist()[0] == child.fitness.tolist()[0] + 3


def test_another_judge_with_the_same_memory_says_the_same():
    memory, scores = {}, []
    first = told(Judge(check, train, steps=5, seeds=["conv 3"], memory=memory), ["conv 3"], [0], [])
    met = np.asarray(first.extra["identity"])
    for _ in range(2):
        judge = Judge(check, train, steps=5, seeds=["conv 3"], memory=memory)
        scores.append(told(judge, ["conv 3 a", "conv 5"], [1, 1], met))
    jax.tree.map(np.testing.assert_array_equal, *scores)
    assert scores[0].fitness.tolist() == [3, 1]


def test_without_a_memory_nothing_is_inherited():
    def plain(programs, steps):
        return [Score(1.0, 1.0, steps) for _ in programs]

    judge = Judge(check, plain, steps=5, seeds=["conv 3"])
    first = told(judge, ["conv 3"], [0], [])
    met = np.asarray(first.extra["identity"])
    assert told(judge, ["conv 3"], [1], met).failure.tolist() == [REASONS.index("duplicate")]


@pytest.mark.parametrize("failure", ["time", "non-finite"])
def test_what_did_not_train_hands_nothing_on(failure):
    def fails(programs, steps, starts):
        return [Score(np.nan, np.nan, 0, failure, weights=np.ones(3, np.float32)) for _ in programs]

    memory = {}
    told(Judge(check, fails, steps=5, seeds=["conv 3"], memory=memory), ["conv 3"], [0], [])
    assert memory == {}
