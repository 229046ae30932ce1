"""Programs from replies, as models write them, and from random edits."""

import ast
import asyncio

import pytest

from jaxnas.llm import BudgetError, ModelError, Reply, scripted
from jaxnas.llm.budget import Budget
from jaxnas.programs.edits import edited
from jaxnas.programs.imports import with_imports, without_imports
from jaxnas.programs.proposer import Proposal, from_client, random_edits

STUB = "class Model(nn.Module):"
BODY = "    @nn.compact\n    def __call__(self, x):\n        return nn.Dense(10)(x)\n"
PROGRAM = f"{STUB}\n{BODY}"
COMPLETE = f"import flax.linen as nn\n{PROGRAM}"
NEXT = '\n"""Metrics:\n{}\n"""\nclass Model(nn.Module):\n    width = 7\n'


def ask(reply, *, begun=STUB, wanted="Model"):
    write = from_client(scripted([reply]), wanted=wanted, begun=begun)
    (source,) = write([Proposal([{"role": "user", "content": "Go on."}], [], 1.0, 0)])
    return source


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(f"\n{BODY}", id="goes on"),
        pytest.param(BODY.lstrip(), id="goes on, first spaces stripped by the server"),
        pytest.param(f"\n{BODY}{NEXT}", id="goes on and then writes another example"),
        pytest.param(f"{BODY.lstrip()}{NEXT}", id="the same, stripped"),
        pytest.param(PROGRAM, id="begins again"),
        pytest.param(f" {PROGRAM}", id="begins again after a space"),
        pytest.param(f"```python\n{PROGRAM}```\nIt is smaller.", id="in a fence"),
        pytest.param(f"Sure:\n```python\n{BODY}```\nDone.", id="goes on in a fence"),
        pytest.param(f"Sure, here it is:\n\n{PROGRAM}", id="after prose"),
        pytest.param(f'"""Metrics:\n{{}}\n"""\n{PROGRAM}', id="repeats the metrics"),
        pytest.param(f"class Model(nn.Module):\n    width = 7\n\n\n{PROGRAM}", id="parent first"),
        pytest.param(f"{COMPLETE}\nmodel = Model()\n", id="with imports and a use"),
        pytest.param(Reply(f"\n{BODY}{NEXT}", "length"), id="whole, cut off in the next one"),
    ],
)
def test_the_program_is_found_in_replies_as_models_write_them(reply):
    assert ast.dump(ast.parse(ask(reply))) == ast.dump(ast.parse(COMPLETE))


DEF = "def f(x, size):"
LINES = "    y = nn.Dense(size)(x)\n    return nn.relu(y)\n"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(f"\n{LINES}", id="goes on"),
        pytest.param(LINES.lstrip(), id="goes on, first spaces stripped by the server"),
        pytest.param(
            f'{LINES.lstrip()}\n"""Metrics:\n{{}}\n"""\n{DEF}\n    return 7\n', id="and on"
        ),
        pytest.param(f"{DEF}\n{LINES}", id="begins again"),
        pytest.param(f"Sure:\n```python\nSIZE = 3\n\n\n{DEF}\n{LINES}```\nDone.", id="in a fence"),
        pytest.param(f"SIZE = 3\n\n\n{DEF}\n{LINES}", id="after a constant"),
        pytest.param(f"{DEF}\n    return 7\n\n\n{DEF}\n{LINES}", id="parent first"),
    ],
)
def test_a_function_is_found_in_replies_like_a_class(reply):
    source = ask(reply, begun=DEF, wanted="f")
    whole = f"import flax.linen as nn\n{DEF}\n{LINES}"
    assert ast.dump(ast.parse(source)) == ast.dump(ast.parse(whole))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Sure", "no Python"),
        ("", "empty"),
        (" I would rather not.", "no Python"),
        (Reply(PROGRAM, "length"), "ends in the middle"),
        (Reply(f"\n{BODY}", "length"), "the reply ends"),
        ("class Net:\n    pass\n", "not defined"),
        (f"{STUB}\n    def __call__(self, x:\n", "Model"),
    ],
)
def test_a_reply_without_a_program_is_kept_with_the_reason_and_never_parses(reply, reason):
    source = ask(reply)
    first, _, rest = source.partition("\n")
    assert reason in first
    assert rest == (reply.text if isinstance(reply, Reply) else reply)
    with pytest.raises(SyntaxError):
        ast.parse(source)


def test_each_proposal_is_asked_with_its_own_messages_temperature_and_seed():
    seen = []

    def speak(request):
        seen.append((request.messages[0]["content"], request.temperature, request.seed))
        return f"class M{request.seed}: pass"

    write = from_client(scripted(speak), max_tokens=7)
    wishes = [Proposal([{"role": "user", "content": str(i)}], [], i / 10, i) for i in range(5)]
    assert write(wishes) == [f"class M{i}: pass\n" for i in range(5)]
    assert sorted(seen) == [(str(i), i / 10, i) for i in range(5)]


def test_a_model_that_does_not_answer_and_a_spent_budget_are_raised():
    wish = Proposal([{"role": "user", "content": "Go on."}], [], 1.0, 0)
    silent = from_client(scripted([ModelError("server", "down")]))
    with pytest.raises(ModelError, match="down"):
        silent([wish])
    spent = Budget(requests=1).guard(scripted(["class A: pass"] * 2))
    asyncio.run(spent.complete(wish.messages))
    with pytest.raises(BudgetError):
        from_client(spent)([wish])


def test_a_request_that_the_server_refuses_costs_one_candidate_unless_all_are_refused():
    def speak(request):
        return ModelError("refused", "too long", status=400) if request.seed else COMPLETE

    wishes = [Proposal([{"role": "user", "content": "Go on."}], [], 1.0, n) for n in (0, 1)]
    write = from_client(scripted(speak))
    good, bad = write(wishes)
    assert good.strip() == write(wishes[:1])[0].strip() != ""
    ast.parse(good)
    with pytest.raises(SyntaxError):
        ast.parse(bad)
    with pytest.raises(ModelError, match="too long"):
        write(wishes[1:])


def test_forgotten_imports_are_added_and_nothing_else():
    source = "from __future__ import annotations\nimport jax\nx = jnp.ones(jax.lax, lax, nn.relu)\n"
    assert with_imports(source).splitlines() == [
        "from __future__ import annotations",
        "import jax.numpy as jnp",
        "import flax.linen as nn",
        "from jax import lax",
        *source.splitlines()[1:],
    ]
    assert with_imports(COMPLETE) == COMPLETE


def test_usual_imports_go_and_come_back():
    assert (
        without_imports(f"import jax\nimport numpy\n\n\n{PROGRAM}")
        == f"import numpy\n\n\n{PROGRAM[:-1]}"
    )
    assert with_imports(without_imports(COMPLETE)) == COMPLETE[:-1]


def test_random_edits_change_the_first_parent_by_the_seed():
    parents = [COMPLETE.replace("10", "30").replace("(x)\n", "(nn.relu(nn.Dense(9)(x)))\n"), "no"]
    wishes = [Proposal([], parents, 1.0, seed) for seed in range(10)]
    sources = random_edits(3)(wishes)
    assert sources == [edited(parents[0], seed, most=3) for seed in range(10)]
    assert len(set(sources)) > 5
