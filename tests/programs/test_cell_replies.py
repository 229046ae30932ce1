"""Cells in a dialogue: what a model is shown, what is read from its replies, what repeats."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.searches import cells as tabular_cells

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.core import Asked, Measured, Searcher, close, run_host
from jaxnas.evolve.archive import filled, grid
from jaxnas.llm import ModelError, scripted
from jaxnas.programs import cell_replies, llmatic_cells
from jaxnas.programs.cell_replies import CREATION, CROSSOVER, MUTATIONS, line, read, write
from jaxnas.programs.llmatic import llmatic
from jaxnas.programs.llmatic_cells import REPEATED, SEED, UNREAD, CellJudge, without_repeats
from jaxnas.programs.sandbox.verdict import FAILURES

CELL = [1, 0, 0, 3, 4, 2]
STRING = "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|"
CLASS = '''Here is a better cell:
```python
class Cell:
    """Six edges."""
    edge_0_1 = skip_connect
    edge_0_2 = "none"
    edge_1_2: str = "zeroize"
    edge_0_3 = ops.conv3x3
    edge_1_3 = avg_pool_3x3
    edge_2_3 = "nor_conv_1x1"
```
'''


@pytest.mark.parametrize(
    "reply",
    [
        CLASS,
        CLASS.replace('    """Six edges."""\n', "    def __init__(self):\n        pass\n"),
        STRING,
        f"The new cell is `{STRING}`.",
        "cell = [skip, none, none, conv3x3, pool3x3, conv1x1]",
        "```python\ncell = ['skip', 'none', 'none', 'conv3x3', 'pool3x3', 'conv1x1',]\n```",
        "skip, none, none, conv3x3, pool3x3, conv1x1",
        "cell = skip, none, none, conv3x3, pool3x3, conv1x1",
        "(skip_connect, none, none, nor_conv_3x3, avg_pool_3x3, nor_conv_1x1)",
        "[0->1: skip, 0->2: none, 1->2: none, 0->3: conv3x3, 1->3: pool3x3, 2->3: conv1x1]",
        "[1, 0, 0, 3, 4, 2]",
        "operation list: [1,0,0,3,4,2]\nIt is better since it has a 3x3 convolution.",
        "cell = [skip, skip, skip, skip, skip, skip]\ncell = [skip, none, none, conv3x3, pool3x3, "
        "conv1x1]",
        "[Skip, None, None, Conv3x3, Pool3x3, Conv1x1] # better",
        "cell = [skip, none, none, conv3x3, pool3x3, conv1x1] and [none, none]",
    ],
)
def test_a_cell_is_read_however_it_is_written(reply):
    found = read(reply)
    assert found.dtype == np.int8
    assert found.tolist() == CELL


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I would rather not.",
        "cell = [skip, none, none, conv3x3, pool3x3]",
        "cell = [skip, none, none, conv3x3, pool3x3, conv1x1, skip]",
        "cell = [skip, none, none, conv5x5, pool3x3, conv1x1]",
        "[1, 0, 0, 3, 4, 5]",
        STRING.replace("nor_conv_3x3~0", "nor_conv_3x3~1"),
        CLASS.replace('    edge_2_3 = "nor_conv_1x1"\n', ""),
        "cell = [skip, none, none, conv3",
        "\x00\ud800 [[[[" * 100,
        "(" * 5_000,
        CLASS.replace("ops.conv3x3", "-" * 700 + "1"),
    ],
)
def test_what_is_no_cell_is_unreadable_and_never_raises(reply):
    assert read(reply).tolist() == [-1] * 6


def test_every_cell_is_read_back_from_the_line_that_a_model_sees():
    for code in range(0, nb.SIZE, 97):
        cell = np.asarray(nb.from_code(jnp.int32(code)))
        assert read(line(cell)).tolist() == cell.tolist()
        assert read(nb.to_text(cell)).tolist() == cell.tolist()


def test_a_prompt_shows_the_parents_and_asks_for_one_line():
    proposal = write(CROSSOVER, [np.array(CELL, np.int8), SEED], 0.7, 5)
    system, example, answer, user = proposal.messages
    assert [m["role"] for m in proposal.messages] == ["system", "user", "assistant", "user"]
    shown, improved = read(example["content"].splitlines()[0]), read(answer["content"])
    assert (shown != improved).sum() == 1
    assert (
        user["content"].splitlines()[:2]
        == list(proposal.parents)
        == [
            line(np.array(CELL, np.int8)),
            "cell(a=skip, b=skip, c=skip, d=conv1x1, e=skip, f=skip)",
        ]
    )
    assert CROSSOVER in user["content"]
    assert (proposal.temperature, proposal.seed) == (0.7, 5)
    assert all(word in system["content"] for word in cell_replies.WORDS)
    assert sum(len(m["content"].split()) for m in proposal.messages) < 160
    assert len(set(MUTATIONS)) == 9
    assert CREATION not in MUTATIONS


def test_every_line_is_a_sentence_of_the_grammar_and_nothing_else_is():
    root, op = cell_replies.grammar().splitlines()
    words = re.findall(r'"([^"]*)"', op)
    parts = re.findall(r'"[^"]*"|op', root)
    pattern = "".join(
        f"(?:{'|'.join(words)})" if part == "op" else re.escape(part.strip('"')) for part in parts
    )
    for code in range(0, nb.SIZE, 499):
        assert re.fullmatch(pattern, line(np.asarray(nb.from_code(jnp.int32(code)))))
    assert not re.fullmatch(pattern, "cell(a=skip, b=none, c=none, d=conv3x3, e=pool3x3)")
    assert len(words) == 5


def test_a_random_edit_changes_one_edge_and_depends_on_the_seed_alone():
    def edited(seed):
        (reply,) = cell_replies.random_edits()([write("", [SEED], 0.5, seed)])
        return read(reply)

    changed = [edited(seed) for seed in range(300)]
    assert all((cell != SEED).sum() == 1 for cell in changed)
    assert {tuple(cell.tolist()) for cell in changed} == {
        tuple(cell.tolist()) for cell in np.asarray(nb.neighbours(jnp.asarray(SEED)))
    }
    assert edited(7).tolist() == edited(7).tolist()


def test_replies_come_as_they_are_and_a_model_that_is_silent_raises():
    client = scripted(lambda request: f"{request.temperature} {request.seed} {request.max_tokens}")
    asked = [write("", [SEED], 0.5, 1), write("", [SEED], 0.25, 2)]
    assert cell_replies.from_client(client)(asked) == ["0.5 1 60", "0.25 2 60"]
    silent = cell_replies.from_client(scripted([ModelError("server", "broken")]))
    with pytest.raises(ModelError, match="broken"):
        silent(asked[:1])


def test_the_judge_looks_up_what_can_be_read_and_is_new_and_charges_for_that_alone():
    table = tabular_cells()
    cells = jnp.array([CELL, [-1] * 6, CELL, SEED], jnp.int8)
    said = CellJudge(table).evaluate(jax.random.key(0), Asked(cells, jnp.array([-1, -1, 0, -1])))
    codes = nb.code(cells)[jnp.array([0, 3])]
    np.testing.assert_array_equal(said.fitness[jnp.array([0, 3])], table.fitness[codes])
    assert said.fitness[1:3].tolist() == [-np.inf, -np.inf]
    assert said.failure.tolist() == [0, UNREAD, REPEATED, 0]
    assert [FAILURES[code - 1] for code in (UNREAD, REPEATED)] == ["parse", "duplicate"]
    assert said.cost.tolist() == [1, 0, 0, 1]


def test_a_repetition_is_any_cell_that_computes_what_an_earlier_one_did():
    rng, state, seen = np.random.default_rng(0), None, set()
    batches = [rng.integers(0, 5, (9, 6)).astype(np.int8) % (2 + n % 4) for n in range(8)]
    for one in batches:
        one[rng.random(9) < 0.2] = -1
    turn = iter(batches)
    inner = Searcher(
        lambda key: jnp.int32(0),
        lambda key, state: (Asked(jnp.asarray(next(turn)), jnp.full(9, 7)), state),
        lambda state, asked, measured: state + 1,
    )
    searcher = without_repeats(inner)
    state = searcher.init(jax.random.key(0))
    for batch in batches:
        asked, state = searcher.ask(jax.random.key(0), state)
        wanted = []
        for cell in batch:
            name = nb.canonical(cell) if cell[0] >= 0 else None
            wanted.append(0 if name in seen else 7)
            seen |= {name} - {None}
        assert asked.budget.tolist() == wanted
        state = searcher.tell(state, asked, Measured(jnp.zeros(9), jnp.zeros(9)))
    assert int(state.searcher) == 8
    assert int(state.seen.sum()) == len(seen)


def test_a_scripted_model_drives_a_search_over_cells():
    def speak(request):
        """Every fifth reply is prose; the others put a convolution where there is none yet."""
        if request.seed % 5 == 0:
            return "A convolution would do."
        cell = read(request.messages[-1]["content"].splitlines()[0])
        cell[request.seed % 6] = nb.CONV3 if request.seed % 7 else nb.CONV1
        return f"```\n{line(cell)}\n```"

    table = tabular_cells()
    if not table.label.startswith("cifar10"):
        pytest.skip("needs the table of NAS-Bench-201")
    from jaxnas.data.tables import nas_bench_201

    candidates = llmatic_cells.cells(nas_bench_201(), "cifar10")
    propose = cell_replies.from_client(scripted(speak))
    searcher = llmatic(candidates, propose, centroids=grid(7, 7), batch=12)
    search = close(without_repeats(searcher), CellJudge(table))
    *_, (_, state, _) = trail = list(run_host(search, jax.random.key(2), 12))
    reasons = np.concatenate([info["measured"].failure for *_, info in trail])
    assert set(reasons.tolist()) == {0, UNREAD, REPEATED}
    assert float(state.cost) == (reasons == 0).sum()
    # Cells are elites of the niche in which their convolutions and FLOPs put them.
    networks = state.searcher.searcher.networks
    there = np.flatnonzero(filled(networks))
    ops = np.asarray(networks.genotypes.genotype)[there]
    convolutions = np.isin(ops, (nb.CONV1, nb.CONV3)).sum(1)
    flops = [table_flops(cell) for cell in ops]
    low, high = candidates.axes[1].low, candidates.axes[1].high
    where = np.stack([convolutions / 6, (np.array(flops) - low) / (high - low)], 1)
    np.testing.assert_allclose(networks.descriptors[there], where, atol=1e-5)
    assert len(there) >= 10


def table_flops(cell):
    """By the table's rule for CIFAR-10: 8.95 M an edge of 3x3, 1.09 M of 1x1, times four."""
    count = [int((cell == op).sum()) for op in range(5)]
    body = 8_954_880 * count[3] + 1_090_560 * count[2] + 322_560 * count[4]
    return 7_943_872 + 4 * body


def test_an_unreadable_reply_has_a_text_in_the_ledger():
    assert llmatic_cells.to_text(np.full(6, -1)) == "no cell in the reply"
    assert llmatic_cells.to_text(np.array(CELL)) == STRING
