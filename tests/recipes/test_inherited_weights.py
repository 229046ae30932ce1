"""`jaxnas run llmatic --set inherit=yes`, by a bench without processes that counts what is learned."""

import hashlib

import numpy as np
import pytest

from jaxnas.cli import main
from jaxnas.programs.bench import Bench
from jaxnas.programs.inheritance import Weights
from jaxnas.programs.judge import Score
from jaxnas.programs.sandbox.verdict import Verdict
from jaxnas.recipes import programs
from jaxnas.recipes.weights import KeptWeights
from jaxnas.runs import drive
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.runs.store import create, open_run

pytestmark = pytest.mark.usefixtures("quick_compile")
CODE = (
    "--set=problem=code",
    "--set=data=mnist1d",
    "--set=proposer=random",
    "--set=init_networks=1",
)
TINY = ("run", "llmatic", "--preset", "tiny", *CODE, "--set=steps=9", "--seeds", "2")


def check(sources):
    """All have one array that every other shares, and one of their own."""
    return [
        Verdict(
            True,
            None,
            "",
            2 + len(source) % 5,
            flops=100.0 * len(source),
            depth=source.count("nn."),
            width=50,
            identity=hashlib.sha256(source.encode()).hexdigest(),
            programs={"init": source.encode()},
            layout=(("Dense/0/bias", (2,)), ("Dense/0/kernel", (len(source) % 5,))),
        )
        for source in sources
    ]


def train(programs, steps, starts=None):
    """Every generation of weights is one more than the one it comes from."""
    sizes = [len(one["init"]) for one in programs]
    if starts is None:
        return [Score(size % 17, 2.0, steps, curve=(1.0,)) for size in sizes]
    ended = [np.nan_to_num(start) + 1 for start in starts]
    return [
        Score(size % 17 + float(w[0]), 2.0, steps, curve=(1.0,), weights=w)
        for size, w in zip(sizes, ended, strict=True)
    ]


@pytest.fixture(autouse=True)
def desk(monkeypatch):
    monkeypatch.setattr(programs, "bench", lambda *_, **__: Bench(check, train))


def kept(run):
    files = sorted((run.folder / "weights").iterdir())
    return {file.name: np.load(file)["values"].tolist() for file in files}


def test_children_go_on_from_their_parents_and_so_does_a_killed_run(said, killed, tmp_path):
    said(*TINY, "--set=inherit=yes", "--out", str(tmp_path / "whole"))
    whole = open_run(tmp_path / "whole")
    learned = kept(whole)
    measured = [row for row in whole.candidates() if row.fitness is not None]
    assert 0 < len(learned) <= len(measured)
    assert max(values[0] for values in learned.values()) >= 2
    for row in measured:
        generation = row.fitness - len(row.genotype) % 17
        parents = [int(serial) for serial in (row.parents or "").split() if int(serial)]
        mine = [other for other in whole.candidates() if other.seed == row.seed]
        older = [mine[serial - 1] for serial in parents[:1]]
        before = sum(other.fitness - len(other.genotype) % 17 for other in older)
        assert generation == before + 1

    killed(*TINY, "--set=inherit=yes", "--out", str(tmp_path / "run"), step=3)
    main(["resume", str(tmp_path / "run"), "--json"])
    resumed = open_run(tmp_path / "run")
    assert resumed.candidates() == whole.candidates()
    assert resumed.steps() == whole.steps()
    assert resumed.results() == whole.results()
    assert learned.items() <= kept(resumed).items()


LONG = (*TINY, "--key=5", "--set=inherit=yes", "--set=evaluations=28", "--set=cells=4")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A run of seven steps, and the elites of each of its states by their identities."""
    folder, elites = tmp_path_factory.mktemp("long") / "run", []

    class Watched(Checkpoints):
        """Looks at what is saved."""

        def save(self, step, state):
            networks, met, found = state.closed.searcher.networks, np.asarray(state.met), set()
            for seed in range(2):
                for cell in range(4):
                    if np.isfinite(networks.fitness[seed, cell]):
                        serial = int(networks.genotypes.serial[seed, cell])
                        found.add(bytes(met[seed, serial - 1]).hex())
            elites.append(found)
            super().save(step, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "bench", lambda *_, **__: Bench(check, train))
        patch.setattr(drive, "Checkpoints", Watched)
        main([*LONG, "--out", str(folder), "--json"])
    return open_run(folder), elites


def test_weights_stay_as_long_as_a_state_that_can_be_gone_back_to_has_the_elite(long):
    run, elites = long
    assert len(elites) == 7
    assert {name.removesuffix(".npz") for name in kept(run)} == set().union(*elites[-3:])
    assert not set().union(*elites) <= set().union(*elites[-3:]), "nobody was replaced"


def test_a_run_finds_its_weights_where_it_goes_on_from_the_older_checkpoint(long, killed, tmp_path):
    """Step 5 goes on from elites of step 4 that were no longer any after it."""
    folder = tmp_path / "run"
    killed(*LONG, "--out", str(folder), step=6)
    for path in (folder / "state" / "5").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    main(["resume", str(folder), "--json"])
    whole, resumed = long[0], open_run(folder)
    assert resumed.candidates() == whole.candidates()
    assert resumed.results() == whole.results()
    assert set(kept(whole)) <= set(kept(resumed))


def test_without_it_no_weights_are_kept(said, tmp_path):
    said(*TINY, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run" / "weights").exists()


def test_cells_of_the_table_have_no_weights_to_inherit(refused, tmp_path):
    settings = ("--set=inherit=yes", "--set=proposer=random")
    error = refused("run", "llmatic", *settings, "--out", str(tmp_path / "run"))
    assert "`inherit` is a setting of code, but `problem` is table" in error


def test_weights_come_back_from_the_folder_of_a_run_bit_for_bit(tmp_path):
    memory = KeptWeights()
    with pytest.raises(ValueError, match="`attach`"):
        memory.get("0" * 64)
    with create(tmp_path / "run", {}) as run:
        memory.attach(run)
        values = np.array([1 / 3, -0.0, 1e-45], np.float32)
        memory["0" * 64] = Weights("ab", (("Dense/0/kernel", (3, 1)),), values)
        other = KeptWeights()
        other.attach(run)
    told = other.get("0" * 64)
    assert (told.program, told.layout) == ("ab", (("Dense/0/kernel", (3, 1)),))
    assert (told.values.dtype, told.values.tobytes()) == (np.float32, values.tobytes())
    assert other.get("1" * 64) is None
    assert list(kept(run)) == [f"{'0' * 64}.npz"]
    np.savez(run.folder / "weights" / f"{'2' * 64}.npz", values=values, layout=np.array("[]"))
    assert other.get("2" * 64).program == "", "of a run from before programs were kept"


def test_weights_go_when_three_states_did_without_them(tmp_path):
    memory = KeptWeights()
    with create(tmp_path / "run", {}) as run:
        memory.attach(run)
    for name in "abc":
        memory[name] = Weights("p", (("Dense/0/bias", (1,)),), np.ones(1, np.float32))
    told = []
    for needed in ["ab", "b", "b", "b", "a", "", "", ""]:
        memory.keep(needed)
        told.append("".join(name[0] for name in kept(run)))
    assert told == ["abc", "abc", "ab", "b", "b", "b", "", ""]
