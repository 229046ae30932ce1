"""Networks in Flax as candidates: the seed's size, what a model is shown, a whole scripted run."""

import ast
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked, Measured, run_host
from jaxnas.evolve.archive import Axis, filled, grid, placed
from jaxnas.llm import scripted
from jaxnas.programs.distinct import distinct
from jaxnas.programs.edits import edited
from jaxnas.programs.judge import Judge, Score
from jaxnas.programs.llmatic import PAPER, REPEATED, llmatic, maps
from jaxnas.programs.llmatic_code import CREATION, CROSSOVER, MUTATIONS, PUBLISHED, networks, seed
from jaxnas.programs.page import LENGTH, page, text, texts
from jaxnas.programs.proposer import from_client, random_edits
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.programs.sandbox.verdict import Rejected, Verdict

AXES = (Axis("width over depth", 0, 60), Axis("FLOPs", 0, 1e5))


@pytest.mark.parametrize(
    ("shape", "params", "flops"),
    [
        # 3 + 1 weights of the convolution, 1024 * 10 + 10 of the dense layer.
        ((32, 32, 3), 10_254, 2 * (32 * 32 * 3 + 1024 * 10)),
        ((40,), 412, 2 * (40 + 40 * 10)),
        ((28, 28, 1), 7_852, 2 * (28 * 28 + 784 * 10)),
    ],
)
def test_the_seed_is_the_smallest_network_of_the_paper(shape, params, flops):
    traced = trace(seed(shape, 10), Task(shape, 10, 4, 4, platforms=("cpu",)))
    assert traced.params == params
    assert traced.flops == flops
    assert (traced.width, traced.depth) == (10, 2)  # so width over depth is 5


def test_a_prompt_shows_sources_instruction_and_what_a_network_is_given():
    candidates = networks((40,), 10, axes=AXES)
    mutation = candidates.write(candidates.mutations[0], [candidates.seed], 0.6, 3)
    system, user = (message["content"] for message in mutation.messages)
    assert "[batch, 40]" in system
    assert "[batch, 10]" in system
    assert user.startswith("```python\nimport flax.linen as nn")
    assert user.endswith("```\n\nAdd a layer to improve the network above.")
    assert list(mutation.parents) == [seed((40,), 10)]
    both = candidates.write(CROSSOVER, [candidates.seed, page("x = 1\n")], 0.7, 3)
    assert both.messages[1]["content"].count("```python") == 2
    assert len(set(MUTATIONS)) == 16
    assert PUBLISHED == 13
    assert CREATION not in MUTATIONS


def fake_check(sources):
    """Sizes read off the text, without running it: enough to place and rank a program."""
    return [fake_verdict(source) for source in sources]


def fake_verdict(source):
    try:
        ast.parse(source)
    except SyntaxError as error:
        return Verdict(False, "parse", str(error))
    return Verdict(
        ok=True,
        failure=None,
        flops=500.0 * len(source) % 1e5,
        depth=source.count("nn."),
        width=50,
        identity=hashlib.sha256(source.encode()).hexdigest(),
        programs={"init": source.encode()},
    )


def fake_train(programs, steps):
    return [Score(len(one["init"]) % 97, 1.0, steps, curve=(1.0, 0.5)) for one in programs]


def run(propose, steps=6):
    candidates = networks((40,), 10, axes=AXES)
    judge = Judge(fake_check, fake_train, steps=7, seeds=[text(candidates.seed)])
    searcher = llmatic(candidates, propose, centroids=grid(5, 5), batch=8, rules=PAPER)
    return list(run_host(distinct(searcher, judge, 100), jax.random.key(1), steps))


def speak(request):
    """An edit of the first source shown, in prose; now and then a reply that breaks off."""
    shown = request.messages[1]["content"].split("```python\n")[1].split("```")[0]
    if request.seed % 7 == 0:
        return "```python\nclass Model(nn.Module):\n    @nn.compact\n    def __call__(self"
    return f"Here it is.\n```python\n{edited(shown, request.seed)}```\nIt is better."


@pytest.mark.parametrize("propose", [from_client(scripted(speak)), random_edits()])
def test_a_scripted_model_and_random_edits_drive_a_search_over_sources(propose):
    trail = run(propose)
    reasons = np.concatenate([info["measured"].failure for *_, info in trail])
    state = trail[-1][1].closed.searcher
    pages_asked = np.concatenate([info["asked"].genotypes for *_, info in trail])
    assert pages_asked.shape == (48, LENGTH)
    assert pages_asked.dtype == np.uint8
    assert (reasons == 0).sum() > 10
    there = np.flatnonzero(filled(state.networks))
    assert len(there) > 3
    for at in there:
        serial = int(state.networks.genotypes.serial[at])
        np.testing.assert_array_equal(
            state.networks.genotypes.genotype[at], pages_asked[serial - 1]
        )
        assert reasons[serial - 1] == 0
        assert float(state.networks.fitness[at]) == len(text(pages_asked[serial - 1])) % 97
    assert np.isfinite(np.asarray(maps(state)["archive_networks"])).sum() == len(there)
    assert REPEATED in reasons or len(set(texts(pages_asked))) == 48


def test_what_could_not_be_traced_has_no_place_in_the_archive():
    extra = {
        "width": jnp.array([50, 0, 10]),
        "depth": jnp.array([5, 0, 2]),
        "flops": jnp.array([5e4, 0.0, 1e9]),
    }
    candidates = networks((40,), 10, axes=AXES)
    asked = Asked(jnp.zeros((3, LENGTH), jnp.uint8), jnp.full(3, -1))
    raw = candidates.describe(asked, Measured(jnp.zeros(3), jnp.zeros(3), extra))
    np.testing.assert_allclose(
        placed(raw, AXES), [[10 / 60, 0.5], [np.nan, np.nan], [5 / 60, 1.0]], rtol=1e-6
    )


def test_a_reply_without_a_network_is_kept_and_fails_to_parse():
    (source,) = from_client(scripted(["Sorry, no."]))(
        [networks((40,), 10, axes=AXES).write("Improve it.", [page("")], 0.5, 1)]
    )
    assert "Sorry, no." in source
    with pytest.raises(Rejected) as failed:
        trace(source, Task((40,), 10, platforms=("cpu",)))
    assert failed.value.failure == "parse"
