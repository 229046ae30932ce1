"""One edit of a parent, asked for by JSON or under a grammar."""

import pytest

from jaxnas.llm import Client, Completion, ModelError, Reply, scripted
from jaxnas.programs.edit_replies import NOTHING, from_client
from jaxnas.programs.grammars import edit_grammar, edit_schema
from jaxnas.programs.proposal import Proposal

PARENT = """import flax.linen as nn
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(10)(x)
"""
OTHER = PARENT.replace("Dense(8)", "Dense(16)")
LAYER = "x = nn.Dense(64)(x)"


def wish(*parents, seed=3):
    return Proposal([{"role": "user", "content": "a class"}], parents, 0.6, seed, "Widen it.")


def written(reply, parent=PARENT, **how):
    """What comes of a reply, and what was asked for it."""
    asked = []

    def speak(request):
        asked.append(request)
        return reply.pop(0) if isinstance(reply, list) else reply

    (child,) = from_client(scripted(speak), (40,), **how)([wish(parent)])
    return child, asked


def as_json(edit, line, layer):
    return f'{{"edit": "{edit}", "line": {line}, "layer": "{layer}"}}'


@pytest.mark.parametrize(
    ("edit", "line", "layer", "new"),
    [
        ("insert after", 5, LAYER, PARENT.replace("(x))\n", f"(x))\n        {LAYER}\n")),
        ("replace", 5, LAYER, PARENT.replace("x = nn.relu(nn.Dense(8)(x))", LAYER)),
        ("delete", 5, "", PARENT.replace("        x = nn.relu(nn.Dense(8)(x))\n", "")),
    ],
)
@pytest.mark.parametrize("constrained", [False, True])
def test_an_edit_is_applied_to_the_parent(edit, line, layer, new, constrained):
    in_words = f"{edit} line {line}" + (f": {layer}" if layer else "")
    reply = in_words if constrained else as_json(edit, line, layer)
    child, (request,) = written(reply, constrained=constrained)
    assert child == new
    form = {"grammar": edit_grammar(PARENT, (40,)), "schema": edit_schema(PARENT)}
    kind = "grammar" if constrained else "schema"
    assert getattr(request, kind) == form[kind]
    assert (request.temperature, request.seed) == (0.6, 3)


def test_the_model_sees_the_lines_with_their_numbers_and_what_is_wished_for():
    words = []

    def speak(request):
        words.append(request.messages[0]["content"])
        return as_json("delete", 5, "")

    from_client(scripted(speak), (40,))([wish(PARENT, OTHER)])
    assert words[0].index("Dense(16)") < words[0].index(" 5         x = nn.relu(nn.Dense(8)(x))")
    assert " 4     def __call__(self, x):\n" in words[0]
    assert "\n\nWiden it.\n\n" in words[0]
    assert "a class" not in words[0]


@pytest.mark.parametrize(
    "reply",
    [
        "Sorry.",
        as_json("replace", 6, LAYER),
        as_json("drop", 5, LAYER),
        as_json("replace", 5, "y = x"),
    ],
)
def test_what_does_not_fit_is_said_and_mended(reply):
    child, asked = written([reply, as_json("replace", 5, LAYER)])
    assert LAYER in child
    assert "That does not fit: " in asked[1].messages[-1]["content"]


@pytest.mark.parametrize(
    "reply",
    [
        "Sorry.",
        as_json("replace", 4, LAYER),
        as_json("replace", 5, "x = nn.Dense("),
        as_json("replace", 5, ""),
    ],
)
def test_what_is_no_edit_of_the_parent_is_no_program(reply):
    child, _ = written(reply)
    assert child.startswith("<no program: ")
    assert child.endswith(reply)


def test_a_parent_without_lines_to_edit_is_not_shown():
    child, asked = written("", parent="no program")
    assert (child, asked) == (f"<no program: {NOTHING}>\nno program", [])


def test_in_a_batch_every_parent_gets_its_own_edit():
    async def send(request):
        if request.seed == 1:
            raise ModelError("refused", "too long", status=413)
        return Completion((Reply(as_json("delete", 5, "")),), None, "m", 0.0)

    wishes = [wish(PARENT, seed=0), wish("none", seed=2), wish(PARENT, seed=1), wish(OTHER, seed=4)]
    first, second, third, fourth = from_client(Client("m", send), (40,))(wishes)
    assert "Dense(8)" not in first
    assert second.endswith("none")
    assert third.startswith("<no program: ")
    assert "Dense(16)" not in fourth
