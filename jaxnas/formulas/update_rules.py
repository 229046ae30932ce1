"""The grammar of optimizers: what an update rule `w <- w - lr * rule` may be made of.

Wang et al., "Efficient Non-Parametric Optimizer Search for Diverse Tasks", NeurIPS 2022,
arXiv:2209.13575. Where the paper's published code differs from the paper's text (its third moment
accumulates squares), the text is followed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxnas.core.keys import unrolled as fast
from jaxnas.formulas.tape import Grammar, Symbol, binary, unary

DECAY, DECAY2, DECAY3 = 0.9, 0.999, 0.999
EPSILON = 1e-8


class Inputs(NamedTuple):
    """What a rule sees at one step.

    Attributes:
      w: `[..., D]` the weights.
      raw: `[..., D]` their gradient.
      g: `[..., D]` the gradient with weight decay added, which all but Adam and RMSprop see.
      memory: `[..., D]` by name: `BUFFERS`, already brought up to this step.
      t: the step, from 1.
      T: how many steps there are.
      keys: `[...]` a key for each run, for symbols that draw random numbers.
      start: the place of the first of these weights among all of the network, which share draws.
      of: how many weights the network has; `None` for these `D`.
    """

    w: Float[Array, "*b D"]
    raw: Float[Array, "*b D"]
    g: Float[Array, "*b D"]
    memory: dict[str, Float[Array, "*b D"]]
    t: Float[Array, ""]
    T: float
    keys: Key[Array, "*b"]
    start: int = 0
    of: int | None = None


class Buffer(NamedTuple):
    """A running average that rules may read.

    Attributes:
      first: its value at the first step, of the gradient.
      decay: share of the old value that stays.
      gain: share of the new term that is added.
      power: of the gradient that is averaged.
      raw: whether the gradient is taken without weight decay.
      lag: whether rules read the value of the step before (zero at the first step).
    """

    first: float
    decay: float
    gain: float
    power: int = 1
    raw: bool = False
    lag: bool = False


BUFFERS: dict[str, Buffer] = {
    "m1": Buffer(1.0, DECAY, 1.0),
    "m2": Buffer(1.0, DECAY2, 1 - DECAY2, 2),
    "m3": Buffer(1.0, DECAY3, 1 - DECAY3, 3),
    "m1p": Buffer(1 - DECAY, DECAY, 1 - DECAY),
    "m2p": Buffer(1 - DECAY2, DECAY2, 1 - DECAY2, 2),
    "m3p": Buffer(1 - DECAY3, DECAY3, 1 - DECAY3, 3),
    "adam1": Buffer(1 - DECAY, DECAY, 1 - DECAY, 1, raw=True),
    "adam2": Buffer(1 - DECAY2, DECAY2, 1 - DECAY2, 2, raw=True),
    "rms": Buffer(0.01, 0.99, 0.01, 2, raw=True),
    "before": Buffer(1.0, 0.0, 1.0, lag=True),
    "lion1": Buffer(0.01, 0.99, 0.01, lag=True),
}


def remember(
    memory: dict[str, Array], g: Array, raw: Array, t: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Brings buffers up to a step.

    Args:
      memory: the buffers that are kept, zeros before the first step.
      g: the gradient with weight decay.
      raw: the gradient without.
      t: the step, from 1.

    Returns:
      The buffers to keep, and the same as rules read them at this step.
    """
    kept, read = {}, {}
    for name, old in memory.items():
        buffer = BUFFERS[name]
        term = (raw if buffer.raw else g) ** buffer.power
        kept[name] = jnp.where(t == 1, buffer.first * term, buffer.decay * old + buffer.gain * term)
        read[name] = old if buffer.lag else kept[name]
    return kept, read


def _leaf(
    name: str, value: Callable[[Inputs], Any], latex: str, code: str, binds: int = 4
) -> Symbol:
    return Symbol(name, 0, lambda s, row: value(s), latex, binds, code=code)


def _buffer(name: str, latex: str) -> Symbol:
    return _leaf(name, lambda s: s.memory[name], latex, name)


def _clip(name: str, bound: float) -> Symbol:
    shown = r"\mathrm{{clip}}_{{X}}({})".replace("X", f"{bound:g}")
    code = f"jnp.clip({{}}, -{bound:g}, {bound:g})"
    return unary(name, lambda a: jnp.clip(a, -bound, bound), shown, code)


def _drop(name: str, rate: float) -> Symbol:
    def apply(s: Inputs, row: Any, a: Any) -> Any:
        stays = _own(s, row, lambda key, shape: jax.random.bernoulli(key, 1 - rate, shape))
        return jnp.where(stays, a / (1 - rate), 0.0)

    shown = r"\mathrm{{drop}}_{{X}}({})".replace("X", f"{rate:g}")
    return Symbol(name, 1, apply, shown, code=f"drop({{}}, {rate:g}, {{row}})")


def _own(s: Inputs, row: Any, draw: Callable[[Key[Array, ""], tuple[int, ...]], Array]) -> Array:
    """Draws for the whole network, and takes what falls to these weights."""
    size = s.g.shape[-1]
    drawn = _each(s, row, lambda key: draw(key, (size if s.of is None else s.of,)))
    return drawn[..., s.start : s.start + size]


def _each(s: Inputs, row: Any, draw: Callable[[Key[Array, ""]], Array]) -> Array:
    """Draws for every run by its own key, so that no run depends on those beside it."""

    def one(key: Key[Array, ""]) -> Array:
        return draw(jax.random.fold_in(fast(key), row))

    for _ in range(s.keys.ndim):
        one = jax.vmap(one)
    return one(s.keys)


def _noise(s: Inputs, row: Any) -> Array:
    # Variance 0.01.
    return 0.1 * _own(s, row, lambda key, shape: jax.random.normal(key, shape, s.g.dtype))


def _weight(name: str, share: float) -> Symbol:
    return _leaf(name, lambda s: share * s.w, f"{share:g} w", f"{share:g} * w", 2)


def cosine(t: Any, T: Any) -> Any:
    """Half a wave of cosine: 1 at the start, 0 at the end."""
    return 0.5 * (1 + jnp.cos(jnp.pi * t / T))


def restarts(t: Any, T: Any) -> Any:
    """Twenty waves that fall from 1 to 0 and start anew."""
    return 0.5 * (1 + jnp.cos(jnp.pi * ((20 * t) % T) / T))


def adam(s: Inputs) -> Array:
    """Adam's direction at its own rate of 0.003."""
    mean = s.memory["adam1"] / (1 - DECAY**s.t)
    variance = s.memory["adam2"] / (1 - DECAY2**s.t)
    return 0.003 * mean / (jnp.sqrt(variance) + EPSILON)


def rmsprop(s: Inputs) -> Array:
    """RMSprop's direction at its own rate of 0.03."""
    return 0.03 * s.raw / (jnp.sqrt(s.memory["rms"]) + EPSILON)


def _epsilon(s: Inputs, row: Any) -> Array:
    # One number a step, of variance 1 / (1 + t)^0.55.
    draw = _each(s, row, lambda key: jax.random.normal(key, (1,), s.g.dtype))
    return draw / jnp.sqrt((1 + s.t) ** 0.55)


_ADAM = "0.003 * adam1 / (1 - 0.9**t) / (jnp.sqrt(adam2 / (1 - 0.999**t)) + 1e-8)"
_SYMBOLS = (
    binary("add", jnp.add, "{} + {}", "({} + {})", binds=1, wants=(1, 1), commutes=True),
    binary("sub", jnp.subtract, "{} - {}", "({} - {})", binds=1, wants=(1, 2)),
    binary("mul", jnp.multiply, r"{} \cdot {}", "({} * {})", binds=2, wants=(2, 2), commutes=True),
    binary(
        "div", lambda a, b: a / (b + EPSILON), r"\frac{{{}}}{{{}}}", "({} / ({} + 1e-8))", binds=2
    ),
    binary("pow", jnp.power, "{{{}}}^{{{}}}", "jnp.power({}, {})", binds=3, wants=(4, 0)),
    unary("neg", jnp.negative, "-{}", "(-{})", binds=1, wants=(2,)),
    unary("exp", jnp.exp, "e^{{{}}}", "jnp.exp({})", binds=3),
    unary("log", lambda a: jnp.log(jnp.abs(a)), r"\ln|{}|", "jnp.log(jnp.abs({}))", binds=3),
    unary("sqrt", lambda a: jnp.sqrt(jnp.abs(a)), r"\sqrt{{|{}|}}", "jnp.sqrt(jnp.abs({}))"),
    unary("sign", jnp.sign, r"\mathrm{{sign}}({})", "jnp.sign({})"),
    _clip("clip5", 1e-5),
    _clip("clip4", 1e-4),
    _clip("clip3", 1e-3),
    _clip("clip0", 1.0),
    _drop("drop1", 0.1),
    _drop("drop3", 0.3),
    _drop("drop5", 0.5),
    _leaf("g", lambda s: s.g, "g", "g"),
    _leaf("g2", lambda s: s.g**2, "g^2", "g**2", 3),
    _leaf("g3", lambda s: s.g**3, "g^3", "g**3", 3),
    _leaf("gp", lambda s: s.memory["before"], "g_{t-1}", "before"),
    _leaf("sg", lambda s: jnp.sign(s.g), r"\mathrm{sign}(g)", "jnp.sign(g)"),
    _buffer("m1", "m_1"),
    _buffer("m2", "m_2"),
    _buffer("m3", "m_3"),
    _buffer("m1p", "m'_1"),
    _buffer("m2p", "m'_2"),
    _buffer("m3p", "m'_3"),
    _leaf("am1p", lambda s: s.memory["m1p"] / (1 - DECAY**s.t), r"\hat m_1", "m1p / (1 - 0.9**t)"),
    _leaf(
        "am2p", lambda s: s.memory["m2p"] / (1 - DECAY2**s.t), r"\hat m_2", "m2p / (1 - 0.999**t)"
    ),
    _leaf(
        "am3p", lambda s: s.memory["m3p"] / (1 - DECAY3**s.t), r"\hat m_3", "m3p / (1 - 0.999**t)"
    ),
    _leaf("sm1", lambda s: jnp.sign(s.memory["m1"]), r"\mathrm{sign}(m_1)", "jnp.sign(m1)"),
    _leaf("sm1p", lambda s: jnp.sign(s.memory["m1p"]), r"\mathrm{sign}(m'_1)", "jnp.sign(m1p)"),
    _leaf("1", lambda s: 1.0, "1", "1.0"),
    _leaf("2", lambda s: 2.0, "2", "2.0"),
    Symbol("noise", 0, _noise, r"\xi", code="0.1 * noise({row})"),
    _weight("w1", 1.0),
    _weight("w2", 0.1),
    _weight("w3", 0.01),
    _weight("w4", 0.001),
    _leaf("adam", adam, r"\mathrm{Adam}", _ADAM),
    _leaf("rmsprop", rmsprop, r"\mathrm{RMSprop}", "0.03 * raw / (jnp.sqrt(rms) + 1e-8)"),
    _leaf("ld", lambda s: 1 - s.t / s.T, r"\mathrm{ld}", "(1 - t / steps)"),
    _leaf("cd", lambda s: cosine(s.t, s.T), r"\mathrm{cd}", "cosine(t, steps)"),
    _leaf("rd", lambda s: restarts(s.t, s.T), r"\mathrm{rd}", "restarts(t, steps)"),
    _leaf("ldm", lambda s: 1.01 - s.t / s.T, r"\mathrm{ld}_+", "(1.01 - t / steps)"),
    _leaf("cdm", lambda s: cosine(s.t, s.T) + 0.03, r"\mathrm{cd}_+", "(cosine(t, steps) + 0.03)"),
    _leaf(
        "rdm", lambda s: restarts(s.t, s.T) + 0.03, r"\mathrm{rd}_+", "(restarts(t, steps) + 0.03)"
    ),
    Symbol("ep", 0, _epsilon, r"\epsilon", code="epsilon({row}) / jnp.sqrt((1 + t) ** 0.55)"),
    # What people wrote and the search may not use.
    _leaf(
        "nesterov", lambda s: s.g + DECAY * s.memory["m1"], r"\mathrm{Nesterov}", "(g + 0.9 * m1)"
    ),
    _leaf("adamw", lambda s: adam(s) + 3e-5 * s.w, r"\mathrm{AdamW}", f"({_ADAM} + 3e-05 * w)"),
    _leaf(
        "lion",
        lambda s: jnp.sign(DECAY * s.memory["lion1"] + (1 - DECAY) * s.raw),
        r"\mathrm{Lion}",
        "jnp.sign(0.9 * lion1 + 0.1 * raw)",
    ),
)
SYMBOLS: dict[str, Symbol] = {symbol.name: symbol for symbol in _SYMBOLS}
# Which buffers a symbol reads, where they have another name than it.
READS = {
    "gp": ("before",), "am1p": ("m1p",), "am2p": ("m2p",), "am3p": ("m3p",), "sm1": ("m1",),
    "sm1p": ("m1p",), "adam": ("adam1", "adam2"), "adamw": ("adam1", "adam2"), "rmsprop": ("rms",),
    "nesterov": ("m1",), "lion": ("lion1",),
}  # fmt: skip

_COMMON = "add sub mul div pow neg exp log sqrt clip3 drop1 sign g g2 m1 m2 sg sm1 1 2"
_LEAVES = {
    "conv-subset": f"{_COMMON} ld cd rd",
    "conv": f"{_COMMON} ld cd rd clip4 clip5 drop3 drop5 g3 m3 noise w1 w2 w3 w4 ep",
    "gnn": f"{_COMMON} g3 m3 adam rmsprop ldm cdm rdm",
    "adversarial": f"{_COMMON} g3 m3 noise ld cd rd ep",
    "everything": " ".join(SYMBOLS),
}
_CLIPS, _SIGNS = "clip5 clip4 clip3 clip0", "sg sm1 sm1p"
_DECAYS = "ld cd rd ldm cdm rdm ep"
_ROOTS = f"pow neg exp sqrt {_CLIPS} 1 2 noise w1 w2 w3 w4 {_DECAYS} g m1 m1p g3 m3 m3p am3p"
_BELOW = {
    "neg": "neg",
    "log": "exp",
    "sign": f"{_DECAYS} 1 2 {_CLIPS} sign {_SIGNS}",
    "sqrt": f"sign {_SIGNS} 1",
    **dict.fromkeys(("drop1", "drop3", "drop5"), "drop1 drop3 drop5"),
    **dict.fromkeys(_CLIPS.split(), f"{_CLIPS} {_DECAYS} neg 1 2"),
}


def space(name: str, nodes: int = 10) -> Grammar:
    """A grammar of update rules.

    Args:
      name: `conv-subset`, `conv`, `gnn`, `adversarial`, or `everything`, in which the hand-made
        optimizers are written.
      nodes: most nodes a rule may have.

    Raises:
      ValueError: if there is no such space.
    """
    if name not in _LEAVES:
        raise ValueError(f"`name` must be one of {', '.join(_LEAVES)}, but got {name!r}.")
    has = _LEAVES[name].split()

    def here(names: str) -> list[str]:
        return [one for one in names.split() if one in has]

    below = {parent: here(children) for parent, children in _BELOW.items() if parent in has}
    symbols = [SYMBOLS[one] for one in has]
    return Grammar(name, symbols, nodes=nodes, roots=here(_ROOTS), below=below)


# What people and earlier searches wrote, in the space `everything`.
BASELINES = {
    "SGD": "g",
    "momentum": "m1",
    "Nesterov": "nesterov",
    "Adam": "adam",
    "RMSprop": "rmsprop",
    "AdamW": "adamw",
    "Lion": "lion",
    "PowerSign": "exp(sg * sm1) * g",
    "PowerSign-ld": "exp(ld * (sg * sm1)) * g",
    "PowerSign-cd": "exp(cd * (sg * sm1)) * g",
    "AddSign": "(1 + sg * sm1) * g",
    "AddSign-ld": "(1 + ld * (sg * sm1)) * g",
    "AddSign-cd": "(1 + cd * (sg * sm1)) * g",
}


def buffers(grammar: Grammar, tokens: Any = None) -> tuple[str, ...]:
    """Buffers that some tokens of a grammar read, in the order of `BUFFERS`; `None` for all tokens."""
    symbols = grammar.symbols
    used = symbols if tokens is None else [symbols[int(k)] for k in tokens if k >= 0]
    read = {name for symbol in used for name in READS.get(symbol.name, (symbol.name,))}
    return tuple(name for name in BUFFERS if name in read)
