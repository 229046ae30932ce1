import ast
import random
import textwrap
import time

import pytest

from jaxnas.llm import extract
from jaxnas.llm.code import FAILURES

MODEL = '''\
class Model(nn.Module):
    """Two ways out, three methods."""

    features: int = WIDTH

    def setup(self):
        self.block = Block(self.features)

    def early(self, x):
        if x is None:
            return None
        return self.block(x)

    @nn.compact
    def __call__(self, x):
        x = self.early(x)

        # A comment in the middle.
        return nn.Dense(10)(jnp.mean(x, axis=1))
'''
BLOCK = """\
class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.features, (3,))(x))
"""
IMPORTS = "import jax.numpy as jnp\nfrom flax import linen as nn\n"
PROGRAM = f"{IMPORTS}\nWIDTH = 32\n\n\n{BLOCK}\n\n{MODEL}"


def tree(source, name="Model"):
    """A class as a tree, the same however it is laid out."""
    found = [n for n in ast.parse(source).body if getattr(n, "name", None) == name]
    return ast.dump(found[-1])


def whole(code, name="Model"):
    """Checks that the program is all there and runs as far as plain names go."""
    assert code.failure is None, (code.failure, code.message)
    assert code.name == name
    assert tree(code.source, name) == tree(PROGRAM, name)
    bound = {n.name for n in ast.parse(code.source).body if isinstance(n, ast.ClassDef)}
    assert {"Model", "Block"} <= bound
    assert "WIDTH = 32" in code.source
    assert "import jax.numpy as jnp" in code.source
    return code.source


def fence(text, mark="```", language="python"):
    return f"{mark}{language}\n{text}\n{mark}"


@pytest.mark.parametrize(
    "reply",
    [
        PROGRAM,
        fence(PROGRAM),
        fence(PROGRAM, language=""),
        fence(PROGRAM, language="Python"),
        fence(PROGRAM, language="py"),
        fence(PROGRAM, mark="~~~"),
        fence(PROGRAM, mark="````"),
        fence(PROGRAM, language='python title="model.py"'),
        f"Sure! Here it is:\n\n{fence(PROGRAM)}\n\nThis model has two layers. Enjoy!",
        f"Here is the class:\n\n{PROGRAM}\nI added a block, for depth: it helps.",
        f"```python\n{PROGRAM}",
        f"{PROGRAM}\n```\nThat is all.",
        textwrap.indent(fence(PROGRAM), "   "),
        f"1. The model:\n\n{textwrap.indent(fence(PROGRAM), '    ')}\n\n2. Notes.",
        fence(textwrap.indent(PROGRAM, "    ").lstrip()),
        fence(PROGRAM.replace("    ", "\t")),
        fence(PROGRAM).replace("\n", "\r\n"),
        "\ufeff" + fence(PROGRAM).replace("    ", "\u00a0\u00a0\u00a0 "),
        fence(PROGRAM + "<|endoftext|>"),
        f"<think>\nclass Model: maybe\n```python\nclass Model(: pass\n```\n</think>\n{fence(PROGRAM)}",
        fence("\n".join(f">>> {line}" if line else ">>> " for line in PROGRAM.split("\n"))),
        f"```bash\npip install flax\n```\n{fence(PROGRAM)}\n```json\n{{'class': 'Model'}}\n```",
        f"{fence(IMPORTS + BLOCK)}\nand then\n{fence('WIDTH = 32' + chr(10) + MODEL)}",
        f"{fence(MODEL)}\nwhere\n{fence(BLOCK)}\nwith\n{fence(IMPORTS + 'WIDTH = 32')}",
        f"```python\n{PROGRAM}\n```python\nprint('never closed, opened again')\n```",
        fence(PROGRAM + "\nmodel = Model()\nprint(model.init(key, x)"),
        f"{IMPORTS}WIDTH = 32\n{BLOCK}\nNow the model itself:\n\n{MODEL}\nLet me know!",
    ],
    ids=range(27),
)
def test_the_program_is_found_whole_in_every_kind_of_reply(reply):
    whole(extract(reply, "Model"))
    whole(extract(reply))


def test_no_method_is_lost_after_the_first_return():
    # The published LLMatic cuts at the first line that holds `return`.
    source = whole(extract(fence(PROGRAM), "Model"))
    assert source.count("return") == PROGRAM.count("return")
    assert ast.dump(ast.parse(source)) == ast.dump(ast.parse(PROGRAM))


def test_examples_of_use_and_unused_helpers_stay_behind():
    usage = (
        "import os, torch\nimport jax\n\nclass Unused: pass\n\nx = jnp.ones((1, 40))\n"
        "model = Model()\nprint(model.tabulate(jax.random.key(0), x))\n"
        "if __name__ == '__main__':\n    WIDTH2 = Model\n    os.system('ls')\n"
    )
    source = whole(extract(fence(PROGRAM + usage), "Model"))
    assert ast.dump(ast.parse(source)) == ast.dump(ast.parse(PROGRAM))


def test_names_that_are_local_pull_nothing_in():
    reply = "x = 1\ny = 2\nK = 3\n\ndef f(x, *, a=K):\n    y = x\n    return [y for x in y]\n"
    assert extract(reply, "f").source == (
        "K = 3\n\n\ndef f(x, *, a=K):\n    y = x\n    return [y for x in y]\n"
    )


def test_of_several_definitions_the_last_counts():
    first = PROGRAM.replace("nn.Dense(10)", "nn.Dense(7)")
    for reply in (first + MODEL, f"Before:\n{fence(first)}\nAfter:\n{fence(PROGRAM)}"):
        assert "nn.Dense(7)" not in whole(extract(reply, "Model"))
    own = "class A:\n    a = 1\n\nclass A:\n    def f(self):\n        return super(A, self)\n"
    assert extract(own, "A").source.count("class A") == 1


def test_what_a_model_thinks_is_not_what_it_answers():
    thought = f"<think>\nMaybe\n{fence(PROGRAM)}\nor not.\n"
    assert extract(f"{thought}</think>\nI would rather not.", "Model").failure == "no_code"
    assert extract(thought, "Model", finish="length").failure == "truncated"


def test_a_parent_never_passes_for_its_broken_child():
    for child, failure in (
        (fence(MODEL.replace("(self, x):", "(self, x:", 1)), "syntax"),
        ("```python\n" + MODEL[: MODEL.index("10)")], "truncated"),
    ):
        code = extract(f"The parent:\n{fence(PROGRAM)}\nImproved:\n{child}", "Model")
        assert (code.source, code.failure) == (None, failure)


def test_the_crossover_of_two_networks_is_the_third_class():
    # LLMatic: both parents stand above, the child has a name of its own and may use them.
    parents = "class Net1(nn.Module):\n    a = 1\n\nclass Net2(nn.Module):\n    b = 2\n"
    child = "class Net3(Net1, nn.Module):\n    c = 3\n"
    code = extract(fence(IMPORTS + parents + child))
    assert code.name == "Net3"
    assert "class Net1" in code.source
    assert "class Net2" not in code.source
    assert extract(fence(parents + child), "Net2").name == "Net2"


def test_helpers_below_the_model_do_not_pass_for_it():
    code = extract(fence(f"{IMPORTS}WIDTH = 32\n{MODEL}\n{BLOCK}\nclass Config:\n    a = 1\n"))
    assert code.name == "Model"


def test_a_reply_in_the_form_of_evoprompting_is_read_behind_its_metrics():
    block = '"""Metrics:\n{"num_params": "4300", "val_accuracy": "0.882"}\n"""\n'
    source = whole(extract(IMPORTS + block + "WIDTH = 32\n" + BLOCK + MODEL, "Model"))
    assert "Metrics" not in source
    # The prompt ends in the stub, the reply goes on behind it.
    stub, _, body = MODEL.partition("\n")
    head = IMPORTS + "WIDTH = 32\n" + BLOCK + block + stub + "\n"
    whole(extract(head + body, "Model"))


def test_a_function_can_be_wanted_with_its_decorator():
    reply = "import functools\n\n@functools.cache\ndef triplets(z):\n    return z\n"
    assert extract(fence(reply), "triplets").source.count("\n@functools.cache\ndef") == 1


def test_what_is_needed_comes_from_the_block_itself_and_else_from_the_last():
    blocks = [
        "import a as nn\nK = 1",
        "K = 2\nL = 2",
        "L = 3",
        "import b as nn\nf = lambda: nn, K, L",
    ]
    for order in (blocks, [*blocks[3:], *blocks[:3]]):
        reply = "\n".join(map(fence, order)).replace(
            "f = lambda: nn, K, L", "def f():\n    return nn, K, L"
        )
        namespace = {
            s.split(" = ")[0]: s for s in extract(reply, "f").source.split("\n") if " = " in s
        }
        assert namespace == {"K": "K = 2", "L": "L = 3"}
        assert extract(reply, "f").source.startswith("import b as nn\n\n")


def test_a_statement_that_begins_in_the_line_of_another_is_read():
    reply = f"y = 1; z = (\n2)\n{PROGRAM}"
    assert extract(reply).source == extract(PROGRAM).source


def test_imports_of_the_future_and_of_everything_stand_first():
    reply = f"{fence('from flax.linen import *')}\n{fence('from __future__ import annotations')}"
    source = extract(f"{reply}\n{fence('class M(Module):' + chr(10) + '    a = 1')}", "M").source
    assert source.startswith("from __future__ import annotations\nfrom flax.linen import *\n\n")


@pytest.mark.parametrize(
    ("reply", "failure", "message"),
    [
        ("", "empty", "the reply is empty"),
        (" \n```python\n```\n", "empty", "the reply is empty"),
        ("I am sorry, I cannot do that.", "no_code", "no Python"),
        ("Use more layers.\n\n* wider\n* deeper\n", "no_code", "no Python"),
        ("```java\nclass Model { int a; }\n```", "empty", "the reply is empty"),
        ("#include <x>\nint main() { return 0; }", "no_code", "no Python"),
        (
            fence("class Net(nn.Module):\n    a = 1"),
            "missing",
            "`Model` is not defined; there is Net",
        ),
        ("x = 3", "missing", "`Model` is not defined"),
        (
            fence("class Model(nn.Module):\n    a = = 1"),
            "syntax",
            "invalid syntax in line 2: a = = 1",
        ),
        (fence("class Model(nn.Module):\npass"), "syntax", "expected an indented block"),
        (fence("class Model:\n    def f(a, a): pass"), "syntax", "duplicate argument 'a'"),
        (fence("class Net(nn.Module:\n    a = 1"), "syntax", "in line 1: class Net"),
        ("class Model:\n    a = 1\nNext:\n    def f(self):\n        pass", "syntax", "other text"),
        ("```python\nclass Model(nn.Module):\n    a = (1,", "truncated", "middle of `Model`"),
        ("class Model(nn.Module):", "truncated", "middle of `Model`"),
        ('class Model:\n    """Never ends', "truncated", "middle of `Model`"),
    ],
)
def test_every_failure_has_its_name_and_says_what_is_wrong(reply, failure, message):
    code = extract(reply, "Model")
    assert (code.source, code.failure) == (None, failure)
    assert message in code.message
    assert failure in FAILURES


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        ("class Model(nn.Module):\n    a = 1", "truncated"),
        ("```python\nclass Model(nn.Module):\n    a = 1", "truncated"),
        ("Let me think about this", "truncated"),
        ("import jax", "truncated"),
        (fence("class Model(nn.Module):\n    a = 1") + "\nThis mod", None),
        ("class Model(nn.Module):\n    a = 1\n\nmodel = Mod", None),
    ],
)
def test_a_reply_cut_at_its_length_is_whole_only_where_more_follows(reply, failure):
    assert extract(reply, "Model", finish="length").failure == failure


@pytest.mark.parametrize("reply", [PROGRAM, f"Here:\n{fence(PROGRAM)}\nIt is deeper."])
def test_wherever_a_reply_is_cut_half_a_program_never_passes(reply):
    lines = [i for i, letter in enumerate(reply) if letter == "\n"]
    for end in sorted({*range(0, len(reply), 7), *lines, *(i + 1 for i in lines), len(reply) - 1}):
        code = extract(reply[:end], "Model", finish="length")
        assert (code.source is None) == (code.failure is not None)
        if code.source is not None:
            whole(code)
    assert code.failure == ("truncated" if reply is PROGRAM else None)


def noisy(rng):
    """The program in a random shape that a model might give it."""
    prose = ["", "Sure!", "Here is the code:", "Note: it is deeper.", "- wider\n- deeper", "OK"]
    pieces = [IMPORTS, "WIDTH = 32\n", BLOCK]
    rng.shuffle(pieces)
    pieces.append(MODEL)
    if rng.random() < 0.5:
        pieces.append("x = jnp.ones((1, 40))\nprint(Model().init(0, x))\n")
    groups = [""]
    for piece in pieces:
        groups = (
            [*groups, piece] if rng.random() < 0.4 else [*groups[:-1], groups[-1] + "\n" + piece]
        )
    language, mark = rng.choice(["python", "py", ""]), rng.choice(["```", "~~~"])
    said = [rng.choice(prose)]
    for group in filter(str.strip, groups):
        said += [fence(group, mark, language), rng.choice(prose)]
    text = "\n".join(said)
    if rng.random() < 0.3:
        text = textwrap.indent(text, " " * rng.randint(1, 6))
    return text.replace("\n", "\r\n") if rng.random() < 0.2 else text


@pytest.mark.parametrize("seed", range(60))
def test_no_shape_of_a_reply_changes_the_program(seed):
    reply = noisy(random.Random(seed))
    whole(extract(reply, "Model"))
    whole(extract(reply))


@pytest.mark.parametrize(
    "reply",
    [
        "-" * 50_000 + "1",
        "(" * 50_000,
        "a(\n" * 30_000,
        "x" + ".a" * 40_000,
        "lambda:" * 9_000 + "1",
        "'''" * 9_999,
        "9" * 9_999,
        "if x:\n" * 9_000,
        "".join(" " * i + "if x:\n" for i in range(300)),
        "a = 1\n" * 9_999 + "class M(: pass",
        "@a\n" * 9_999,
        "```python\n" * 9_000,
        "`" * 50_000,
        "{[" * 20_000,
        "\x00\ud800\u2028\x0c",
        "class Model(nn.Module):\n    a = '\\d' '\ud800'\n",
        " " * 99_999 + "x",
        "<think>" * 9_999,
        "\t" * 90_000,
    ],
    ids=range(19),
)
def test_no_reply_takes_long_or_raises(reply):
    begin = time.process_time()
    code = extract(reply, "Model")
    assert time.process_time() - begin < 10
    assert code.source is None
    assert code.failure in FAILURES


def test_nothing_is_executed():
    reply = "import builtins\nbuiltins.touched = True\nclass Model:\n    builtins.touched = True\n"
    assert "touched" in extract(reply, "Model").source
    import builtins

    assert not hasattr(builtins, "touched")


def test_functions_nested_beyond_all_measure_are_read_all_the_same():
    deep = f"f = {'lambda: ' * 1200}math.pi"
    code = extract(f"import math\n\n\nclass Model:\n    {deep}\n", "Model")
    assert code.source is not None
    assert code.source.startswith("import math\n")
