import asyncio
import doctest
import importlib
import json
import pkgutil

import pytest

import jaxnas.llm
from jaxnas.llm import (
    BudgetError,
    Client,
    Completion,
    ModelError,
    Reply,
    ask_all,
    scripted,
    structured,
)
from jaxnas.llm.structured import misfit, values

ASK = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "How many?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def server(refuses, asked, status=400):
    """A model that takes only some kinds of request, and notes which it was asked."""

    def speak(request):
        kind = (
            "text" if request.schema is None else "schema" if request.schema == SCHEMA else "json"
        )
        asked.append(kind)
        if kind in refuses:
            return ModelError("refused", f"no {kind}", status=status, free=True)
        return '{"a": 3}' if kind != "text" else "Well:\n```json\n{\n 'a': 3}\n```\nor {\"a\": 4}."

    inner = scripted(speak)

    async def send(request):
        await asyncio.sleep(0.001)  # so that requests overlap
        return await inner.send(request)

    return structured(Client("m", send))


@pytest.mark.parametrize(
    ("refuses", "climbed", "later", "parsed"),
    [
        ((), ["schema"], "schema", 3),
        (("schema",), ["schema", "json"], "json", 3),
        (("schema", "json"), ["schema", "json", "text"], "text", 4),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 501])
def test_the_strictest_means_is_found_and_what_is_refused_is_asked_once(
    refuses, climbed, later, parsed, status
):
    asked = []
    client = server(refuses, asked, status)
    done = ask_all(client.complete(ASK, schema=SCHEMA, seed=i) for i in range(6))
    assert asked == climbed + [later] * 5
    assert {d.replies[0].parsed["a"] for d in done} == {parsed}
    ask_all([client.complete(ASK, schema=SCHEMA)])
    assert asked == climbed + [later] * 6


def test_where_the_server_does_not_constrain_the_schema_stands_in_the_prompt():
    seen = []
    client = structured(
        scripted(
            lambda request: (
                seen.append(request)
                or (ModelError("refused", "no", status=400) if request.schema else '{"a": 1}')
            )
        )
    )
    ask_all([client.complete(ASK, schema=SCHEMA)])
    first, second, third = seen
    assert [m["content"] for m in first.messages] == ["Brief.", "How many?"]
    for request in (second, third):
        assert request.messages[0] == ASK[0]
        assert request.messages[1]["content"].startswith("How many?\n\n")
        assert '"required":["a"]' in request.messages[1]["content"]


def test_what_is_refused_for_another_reason_is_not_remembered():
    asked = []
    client = server(("schema", "json", "text"), asked)
    (done,) = ask_all([client.complete(ASK, schema=SCHEMA)])
    assert done.status == 400
    ask_all([client.complete(ASK, schema=SCHEMA)])
    assert asked == ["schema", "json", "text"] * 2


@pytest.mark.parametrize("kind", ["limited", "server", "timeout", "connection"])
def test_failures_that_are_no_refusal_do_not_lower_the_rung(kind):
    asked = []

    def speak(request):
        asked.append(request.schema)
        return ModelError(kind, "later", status=503) if len(asked) == 1 else '{"a": 1}'

    client = structured(scripted(speak))
    assert isinstance(ask_all([client.complete(ASK, schema=SCHEMA)])[0], ModelError)
    ask_all([client.complete(ASK, schema=SCHEMA)])
    assert asked == [SCHEMA, SCHEMA]


def test_requests_without_a_schema_pass_untouched_while_the_first_waits():
    async def scenario():
        gate = asyncio.Event()
        inner = scripted(lambda request: '{"a": 1}')

        async def send(request):
            if request.schema:
                await gate.wait()
            return await inner.send(request)

        client = structured(Client("m", send))
        waiting = asyncio.create_task(client.complete(ASK, schema=SCHEMA))
        free = await asyncio.wait_for(client.complete(ASK), 5)
        gate.set()
        return free, await waiting

    free, held = asyncio.run(scenario())
    assert free.replies[0].parsed is None
    assert held.replies[0].parsed == {"a": 1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', [{"a": 1}]),
        (" \n[1, 2]\n", [[1, 2]]),
        ('Sure! {"a": {"b": [1]}} and {"c": 2}', [{"a": {"b": [1]}}, {"c": 2}]),
        ('{not json} [x] {"a": 1}', [{"a": 1}]),
        ('{"a": 1', []),
        ("no JSON at all", []),
        ("", []),
        ("[" * 100_000, []),
        ('{"a":' * 5_000, []),
    ],
)
def test_json_is_found_wherever_it_stands(text, found):
    assert values(text) == found


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"layers": [{"size": 3}], "kind": "cnn"}, None),
        ({"layers": [], "kind": "mlp", "more": 1}, None),
        ([], "$ must be of type object"),
        ({"kind": "cnn"}, "$.layers is missing"),
        ({"layers": [{"size": "3"}], "kind": "cnn"}, "$.layers[0].size must be of type integer"),
        ({"layers": [{"size": True}], "kind": "cnn"}, "$.layers[0].size must be of type integer"),
        ({"layers": [{"size": 3.0}], "kind": "cnn"}, "$.layers[0].size must be of type integer"),
        ({"layers": [], "kind": "gan"}, "$.kind must be one of ['cnn', 'mlp']"),
        ({"layers": None, "kind": "cnn"}, None),
    ],
)
def test_a_value_is_checked_against_the_schema(value, where):
    layer = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = {
        "type": "object",
        "properties": {
            "layers": {"type": ["array", "null"], "items": layer},
            "kind": {"enum": ["cnn", "mlp"]},
        },
        "required": ["layers", "kind"],
    }
    assert misfit(value, schema) == where


RULES = {
    "type": "object",
    "properties": {
        "depth": {"type": "integer", "minimum": 1, "maximum": 4},
        "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3},
        "sizes": {"type": "array", "items": {"const": 7}, "minItems": 1, "maxItems": 2},
        "step": {
            "anyOf": [
                {"type": "object", "required": ["add"], "additionalProperties": False}
                | {"properties": {"add": {"enum": [1, "x", None]}}},
                {"type": "null", "title": "nothing"},
            ]
        },
    },
    "additionalProperties": False,
}
PARTS = {
    "depth": [0, 1, 4, 5, 2.5, "1", True, None],
    "name": ["a", "ab", "abc", "abcd", "A1", "", 3],
    "sizes": [[], [7], [7, 7], [7, 7, 7], [8], ["7"], 7, {}],
    "step": [
        None,
        {},
        {"add": 1},
        {"add": True},
        {"add": "x"},
        {"add": 2},
        {"add": 1, "b": 1},
        "x",
    ],
    "other": [1],
}
VALUES = [{name: value} for name in PARTS for value in PARTS[name]] + [[], None, 3, "{}", {}]


@pytest.mark.parametrize("value", VALUES, ids=json.dumps)
def test_what_fits_is_what_the_reference_says(value):
    reference = pytest.importorskip("jsonschema").Draft202012Validator(RULES)
    assert (misfit(value, RULES) is None) == reference.is_valid(value)


@pytest.mark.parametrize(
    "schema", [{"oneOf": []}, {"properties": {"a": {"$ref": "#"}}}, {"additionalProperties": {}}]
)
def test_a_schema_that_cannot_be_checked_is_refused_before_anything_is_asked(schema):
    def ask(request):
        raise AssertionError

    with pytest.raises(ValueError, match="`schema` may have additionalProperties, anyOf"):
        ask_all([structured(scripted(ask)).complete(ASK, schema=schema)])


def test_a_reply_that_does_not_fit_gets_one_second_chance_and_is_told_what_is_wrong():
    asked, said = [], iter(['{"a": "three"}', 'Sorry:\n```json\n{"a": 3}\n```'])

    def speak(request):
        asked.append(request)
        return next(said)

    (done,) = ask_all([structured(scripted(speak)).complete(ASK, schema=SCHEMA, seed=5)])
    assert done.replies[0].parsed == {"a": 3}
    assert done.replies[0].text.startswith("Sorry")
    first, second = asked
    assert second.messages[:2] == first.messages
    assert second.messages[2] == {"role": "assistant", "content": '{"a": "three"}'}
    assert "That does not fit: $.a must be of type integer." in second.messages[3]["content"]
    assert (second.schema, second.seed, second.n) == (SCHEMA, 5, 1)
    assert done.usage.completion == sum(
        len(text.split()) for text in ('{"a": "three"}', done.replies[0].text)
    )


@pytest.mark.parametrize(
    ("second", "text", "calls"),
    [
        ("none", "none", 2),
        (ModelError("server", "down", status=500), '{"b": 1}', 2),
    ],
)
def test_there_is_no_third_chance_and_what_was_paid_for_is_kept(second, text, calls):
    script, asked = ['{"b": 1}', second], []

    async def send(request):
        asked.append(request)
        if isinstance(outcome := script[len(asked) - 1], Exception):
            raise outcome
        return Completion((Reply(outcome),), None, "m", 1.0)

    (done,) = ask_all([structured(Client("m", send)).complete(ASK, schema=SCHEMA)])
    assert (done.replies[0].text, done.replies[0].parsed, len(asked)) == (text, None, calls)


def test_a_budget_that_does_not_reach_for_the_second_chance_is_said():
    script = [Completion((Reply('{"b": 1}'),), None, "m", 1.0), BudgetError("requests", 1, 1, 1)]

    async def send(request):
        if isinstance(outcome := script.pop(0), Exception):
            raise outcome
        return outcome

    (said,) = ask_all([structured(Client("m", send)).complete(ASK, schema=SCHEMA)])
    assert isinstance(said, BudgetError)


def test_of_several_replies_those_that_do_not_fit_are_mended():
    def speak(request):
        return ['{"a": 1}', '{"b": 1}'] if request.n == 2 else '{"a": 2}'

    (done,) = ask_all([structured(scripted(speak)).complete(ASK, n=2, schema=SCHEMA)])
    assert [reply.parsed for reply in done.replies] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.iter_modules(jaxnas.llm.__path__) if m.name != "endpoint"]
)
def test_the_examples_of_the_module_run(name):
    module = importlib.import_module(f"jaxnas.llm.{name}")
    assert doctest.testmod(module).failed == 0
