"""Whatever a model says under a grammar is valid: a random one says it."""

import ast

import jax
import jax.numpy as jnp
import pytest

for package in ("gguf", "tokenizers", "llguidance"):
    pytest.importorskip(package)
import flax.linen as nn  # noqa: E402
from reference.decoder import write_gguf  # noqa: E402

from jaxnas.llm import ask_all  # noqa: E402
from jaxnas.llm.local import local  # noqa: E402
from jaxnas.programs import cell_replies  # noqa: E402
from jaxnas.programs.cell_replies import read  # noqa: E402
from jaxnas.programs.grammars import edit_grammar, flax_class  # noqa: E402
from jaxnas.programs.line_edits import apply_edit, places  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compile")

SIGNAL = """class Model(nn.Module):
    @nn.compact
    def __call__(self, y):
        y = y[..., None]
        y = nn.relu(nn.Conv(8, (3,))(y))
        y = y.reshape((y.shape[0], -1))
        z = y * 2
        y = nn.Dense(
            32
        )(y)
        y = y + nn.Dense(y.shape[-1])(y)
        return nn.Dense(10)(y)
"""
SHAPES = [((40,), 10), ((8, 8, 3), 5)]


@pytest.fixture(scope="module")
def say(tmp_path_factory):
    client = local(write_gguf(tmp_path_factory.mktemp("lm") / "tiny.gguf"), batch=8, context=1024)
    ask = [{"role": "user", "content": "Go on."}]

    def texts(grammar, n, seed=0):
        hot = {"temperature": 20.0, "max_tokens": 990}  # all that the grammar allows is likely
        call = client.complete(ask, n=n, grammar=grammar, seed=seed, **hot)
        (done,) = ask_all([call])
        assert {reply.finish for reply in done.replies} == {"stop"}
        return [reply.text for reply in done.replies]

    return texts


def outputs(source, shape):
    """Shape of what the class in a source gives for a batch of two."""
    names = {"nn": nn, "jnp": jnp, "jax": jax}
    exec(source, names)
    module = names["Model"]()
    x = jnp.zeros((2, *shape))
    return jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x)[0]).shape


@pytest.mark.parametrize(("shape", "classes"), SHAPES)
def test_every_class_maps_a_batch_to_logits(say, shape, classes):
    sources = say(flax_class(shape, classes, most=3), 20)
    assert len(set(sources)) >= 8
    for source in sources:
        assert outputs(source, shape) == (2, classes)
    together = "".join(sources)
    assert all(layer in together for layer in ("nn.Dense(", "nn.Conv(", "_pool(", "x + nn."))


def test_every_cell_is_one_of_the_space(say):
    cells = [read(reply) for reply in say(cell_replies.grammar(), 16)]
    assert all((cell >= 0).all() for cell in cells)
    assert len({tuple(cell) for cell in cells}) >= 12


def test_every_edit_of_a_signal_network_runs(say):
    edits = say(edit_grammar(SIGNAL), 32)
    assert {edit.split()[0] for edit in edits} == {"insert", "delete", "replace"}
    for edit in edits:
        edited = apply_edit(SIGNAL, edit)
        assert edited != SIGNAL or edit.startswith("replace")
        assert outputs(edited, (40,)) == (2, 10)


def test_every_edit_of_an_image_network_runs(say):
    (source,) = say(flax_class((8, 8, 3), 5, most=3), 1, seed=5)
    for edit in say(edit_grammar(source, (8, 8, 3)), 16):
        assert outputs(apply_edit(source, edit, is_spatial=True), (8, 8, 3)) == (2, 5)


def test_lines_that_can_be_edited_are_layers_of_one_line():
    name, found = places(SIGNAL)
    assert name == "y"
    assert [p.line for p in found] == [3, 4, 5, 6, 11]
    assert [p.line for p in found if p.is_step] == [5, 11]
    assert [p.line for p in found if p.is_spatial] == [4, 5]


def test_edits_change_one_line():
    lines = SIGNAL.split("\n")
    deleted = apply_edit(SIGNAL, "delete line 5")
    assert deleted.split("\n") == lines[:4] + lines[5:]
    inserted = apply_edit(SIGNAL, "insert after line 3: y = nn.tanh(y)\n")
    assert inserted.split("\n") == [*lines[:3], "        y = nn.tanh(y)", *lines[3:]]
    replaced = apply_edit(SIGNAL, " replace line 11: y = nn.tanh(y)")
    assert replaced.split("\n") == [*lines[:10], "        y = nn.tanh(y)", *lines[11:]]
    assert all(ast.parse(edited) for edited in (deleted, inserted, replaced))


@pytest.mark.parametrize(
    "reply",
    ["", "delete", "delete line 4", "delete line 99", "replace line 12: y = 1", "drop line 5",
     "insert after line 12: y = y", "insert after line 5:", "delete line 5\ndelete line 5"],
)  # fmt: skip
def test_what_is_no_edit_of_such_a_line_is_refused(reply):
    with pytest.raises(ValueError, match="`reply` must"):
        apply_edit(SIGNAL, reply)


@pytest.mark.parametrize("source", ["", "def f(", "x = 1", "class A:\n    def __call__(self): 1"])
def test_a_source_without_lines_to_edit_is_refused(source):
    with pytest.raises(ValueError, match="`source` must define"):
        edit_grammar(source)


@pytest.mark.parametrize("shape", [(), (8, 8), (1, 2, 3, 4)])
def test_shapes_are_those_of_signals_or_images(shape):
    with pytest.raises(ValueError, match="`shape` must be"):
        flax_class(shape, 10)
