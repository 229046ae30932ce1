"""Training programs that come from elsewhere as bytes: read, and refused unless they are harmless.

A program is three exported functions (`programs/sandbox/program.py` makes them):

    init(key) -> state          step(state, x, y, key, learning_rate) -> (state, loss, accuracy)
    evaluate(state, x) -> logits

Others may stand beside them. An XLA program can only compute, unless it holds a custom call into the process that runs it, such
as a host callback, or waits for the host. So these are looked for before anything is compiled. The
libraries behind such calls believe the shapes and layouts they are told and write beyond an array
where these are wrong; so a call must stand as JAX writes it. QR is let through, of which orthogonal
initial weights are made, those of recurrent layers among them.
"""

import re
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Shape
from jax.export import Exported, deserialize, export

PARTS = ("init", "step", "evaluate")
_CALL = re.compile(r"stablehlo\.custom_call @([\w.$]+)\(.* : \(tensor<([\dx]+)xf32>.*")
_NAMES = re.compile(r"%[\w:#]+| loc\(#loc\d*\)$")
_WAITING = re.compile(r"\b\w+\.(infeed|outfeed|send|recv)\b")


class Programs(NamedTuple):
    """A candidate, ready to be compiled.

    Attributes:
      init: gives a state.
      step: trains on a batch.
      evaluate: gives logits.
      runs: trainings side by side, `R`; 0 for one without that axis.
      batch: examples of a step.
      eval_batch: examples that are judged at a time.
    """

    init: Exported
    step: Exported
    evaluate: Exported
    runs: int
    batch: int
    eval_batch: int


class Refused(ValueError):  # noqa: N818 - it is a verdict on a program, not an error of ours
    """A program may do more than compute, or is none."""


def opened(programs: Mapping[str, bytes]) -> Programs:
    """Reads and checks the three functions of a candidate.

    Args:
      programs: `init`, `step` and `evaluate` as bytes of `jax.export`.

    Raises:
      Refused: if one is missing, may do more than compute, or does not fit the others.
    """
    with read(programs) as parts:
        return _fitting(parts["init"], parts["step"], parts["evaluate"])


@contextmanager
def read(
    programs: Mapping[str, bytes], names: Collection[str] = PARTS
) -> Generator[dict[str, Exported]]:
    """The functions of a candidate, for a look at their form inside.

    Args:
      programs: bytes of `jax.export` by name.
      names: of those that must be there; no other is read.

    Raises:
      Refused: if one is missing or may do more than compute; and for whatever is raised inside,
        since what is no program may raise anything when it is looked at.
    """
    if missing := set(names) - set(programs):
        raise Refused(f"`programs` must hold {', '.join(names)}, but lacks {missing}.")
    try:
        parts = {name: deserialize(bytearray(programs[name])) for name in names}
        for name, program in parts.items():
            if objection := refusal(program):
                raise Refused(f"`programs` must only compute, but {name} {objection}.")
        yield parts
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"`programs` must be of `jax.export`, but cannot be read: {error}") from None


def refusal(program: Exported) -> str | None:
    """What a program might do besides computing, as a clause; None if it only computes."""
    text = program.mlir_module()
    for line in text.splitlines():
        if "custom_call" in line and (objection := _objection(line, program.platforms)):
            return objection
    waits = sorted(set(_WAITING.findall(text)))
    if waits:
        return f"waits for the host ({', '.join(waits)})"
    return "has side effects" if program.ordered_effects or program.unordered_effects else None


def _objection(line: str, platforms: tuple[str, ...]) -> str | None:
    """What there is against the call in a line of a program."""
    call = _CALL.search(line)
    if call is None:
        return "has a custom call in a form that is not known"
    shape = tuple(map(int, call[2].split("x")))
    known = len(shape) > 1 and _bare(line) in _calls_of_qr(shape, platforms)
    return None if known else f"calls {call[1]} outside of XLA, or not as JAX does"


@cache
def _calls_of_qr(shape: tuple[int, ...], platforms: tuple[str, ...]) -> set[str]:
    """The custom calls in JAX's own QR decomposition of matrices of a shape."""
    program = export(jax.jit(jnp.linalg.qr), platforms=platforms)(Shape(shape, jnp.float32))
    return {_bare(line) for line in program.mlir_module().splitlines() if "custom_call" in line}


def _bare(line: str) -> str:
    """An operation without the names of its values and its place in a source."""
    return _NAMES.sub("", line).strip(" =")


def _fitting(init: Exported, step: Exported, evaluate: Exported) -> Programs:
    """Checks that a state of one is a state of the others."""
    (key,), state = init.in_avals, init.out_avals
    runs = key.shape[:-1]
    counts = tuple(len(v) for v in (step.in_avals, step.out_avals, evaluate.in_avals))
    if counts != (wanted := tuple(len(state) + more for more in (4, 2, 1))):
        raise Refused(f"`programs` must agree, but they take {counts} arrays, not {wanted}.")
    x, y, keys, rate = step.in_avals[len(state) :]
    logits = evaluate.out_avals[0]
    expected = {
        "the state of `init`": (step.in_avals[: len(state)], state),
        "the state after `step`": (step.out_avals[: len(state)], state),
        "the state of `evaluate`": (evaluate.in_avals[:-1], state),
        "key and learning rate": ([keys.shape, rate.shape], [key.shape, runs]),
        "the batch": ([y.shape, x.shape[1:]], [x.shape[:1], evaluate.in_avals[-1].shape[1:]]),
        "the results of `step`": ([v.shape for v in step.out_avals[len(state) :]], [runs, runs]),
        "the logits": (logits.shape[:-1], (*runs, evaluate.in_avals[-1].shape[0])),
    }
    agree(expected)
    trees = [(init, (0,)), (step, (state, 0, 0, 0, 0)), (evaluate, (state, 0))]
    if any(p.in_tree != jax.tree.structure((tuple(args), {})) for p, args in trees):
        raise Refused("`programs` must take (key), (state, x, y, key, rate) and (state, x).")
    return Programs(init, step, evaluate, runs[0] if runs else 0, x.shape[0], logits.shape[-2])


def agree(expected: Mapping[str, tuple[Any, Any]]) -> None:
    """Returns if everything is as it should be; arrays are compared by shape and type.

    Args:
      expected: by what it is: what was found, and what is wanted.

    Raises:
      Refused: with the first that differs.
    """
    for what, (found, wanted) in expected.items():
        if _plain(found) != _plain(wanted):
            raise Refused(f"`programs` must agree, but {what} is {found}, not {wanted}.")


def _plain(avals: object) -> list[object]:
    return [(a.shape, a.dtype) if hasattr(a, "dtype") else a for a in avals]  # ty: ignore
