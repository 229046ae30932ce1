"""What a source may say, and what a model is told that said something else."""

import pytest

from jaxnas.programs.sandbox import rules
from jaxnas.programs.sandbox.verdict import Rejected

HEAD = "import jax\nimport jax.numpy as jnp\nimport numpy as np\nfrom flax import linen as nn\n"


def rejected(source):
    with pytest.raises(Rejected) as caught:
        rules.check(source)
    return caught.value


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nimport flax\nimport flax.linen as nn",
        "import functools\nfrom functools import partial\nconv = functools.partial(int, base=2)",
        "from typing import Any, Callable\nfrom collections.abc import Sequence\nModule = Any",
        '"""A `__call__` and a `__dict__` in a text about them."""\nWIDTHS: tuple = (3, 2 * 4)',
        'class A(nn.Module):\n    """Its __class__ is named."""\n    init: Any = nn.zeros_init()',
        "class A(B):\n    def __post_init__(self):\n        super().__post_init__()\n"
        "        self._hidden = getattr(self, 'width')",
        "def f(x):\n    while True:\n        x -= 1\n        if x < 0: return x",
        'x = 1\nif __name__ == "__main__":\n    print(Model()(jnp.ones(3)))',
        "def f(x):\n    return jax.nn.gelu(jax.lax.rsqrt(x)) + jnp.fft.fft(x) + np.sqrt(2)",
    ],
)
def test_what_a_network_is_written_with_is_allowed(source):
    rules.check(HEAD + source if "__future__" not in source else source)


TRICKS = [
    "import os",
    "import jax.experimental",
    "import numpy.lib",
    "from os import path",
    "from jax import _src",
    "from jax import debug",
    "from jax.numpy import *",
    "from . import x",
    "__import__('os')",
    "f = __builtins__",
    "def f(): return eval('1')",
    "def f(): g = open; return g('x')",
    "def f(): return ().__class__.__bases__[0].__subclasses__()",
    "def f(): return getattr(nn, '__dict__')",
    "def f(name): return getattr(nn, name)",
    "def f(): return getattr(nn, '_s' + 'rc')",
    "def f(): return '{0.__class__}'.format(1)",
    "def f(): return f'{nn}' '__globals__'",
    "def f(x):\n    match x:\n        case object(__class__=c): return c",
    "def f(): return nn.module._thread",
    "def f(): return jax._src.lib",
    "def f(x): return jax.pure_callback(print, x, x)",
    "def f(x): jax.debug.callback(print, x)",
    "def f(x): return jax.experimental.io_callback(print, x, x)",
    "def f(x): return jax.ffi.ffi_call('f', x)(x)",
    "def f(): return np.load('x')",
    "def f(): return np.lib.format.open_memmap('x')",
    "def f():\n    global x\n    x = 1",
    "def f():\n    while True: pass",
    "f = nn.Dense(3)",
    "print('x')",
    "for i in range(3): pass",
    "try:\n    import jax\nexcept ImportError: pass",
    "@__import__('os').system\ndef f(): pass",
    "class A: x = __import__('os')",
]


@pytest.mark.parametrize("source", TRICKS)
def test_tricks_are_forbidden_with_the_line(source):
    said = rejected(HEAD + source)
    assert said.failure == "forbidden"
    assert said.message.startswith("line ")


def test_a_message_names_what_to_mend_on_every_line():
    said = rejected(f"import os\n{HEAD}x = nn.Dense(3)\n").message.splitlines()
    assert said == [
        "line 1: `os` may not be imported; use jax, jax.numpy, flax.linen, math, functools",
        "line 6: only imports, classes, functions and constants may stand outside of classes; "
        "remove this statement or move it into the class",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "x = (",
        "class A:\nx = 1",
        "x = '\0'",
        "(" * 3000,
        "x = " + "-" * 20_000 + "1",
        "x = 1\n" * 8_000,
        "x = [" + "1," * 6_000 + "]",
        "x = " + "9" * 5_000,
    ],
)
def test_what_is_no_python_or_too_long_fails_to_parse(source):
    said = rejected(source)
    assert said.failure == "parse"
    assert len(said.message) < 500


def test_a_syntax_error_shows_its_line():
    assert rejected("x = 1\ny = = 2").message == "SyntaxError: invalid syntax (line 2: `y = = 2`)"
