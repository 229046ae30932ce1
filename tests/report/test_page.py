import re
import statistics

import numpy as np
import pytest
from page_reader import Page
from synthetic_runs import config, darts_cells, supernet, tabular

from jaxnas.report import report
from jaxnas.runs import BrokenRunError, Candidate, Curve, Result, Snapshot, Step, create, open_run

HOSTILE = "<script>alert('x')</script>&\"$\\frac{a}{$<b>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    runs = {
        "tabular": tabular(base / "tabular"),
        "supernet": supernet(base / "supernet"),
        "failing": tabular(base / "failing", seeds=3, steps=60, failures=True),
    }
    made = {name: report([run.folder]) for name, run in runs.items()}
    made["all"] = report([run.folder for run in runs.values()], base / "all.html")
    return runs, {name: path.read_text(encoding="utf-8") for name, path in made.items()}


@pytest.mark.parametrize("kind", ["tabular", "supernet", "failing", "all"])
def test_a_page_stands_alone_and_its_tags_nest(pages, kind):
    text = pages[1][kind]
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base", "image"}
    for name, value in page.attributes:
        if not name.startswith("xmlns"):
            assert not re.search(r"https?:|^//|javascript:", value or "")
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", text))
    assert "@import" not in text


def test_a_tabular_run_shows_its_numbers(pages):
    run, page = pages[0]["tabular"], Page(pages[1]["tabular"])
    found = [r for r in run.results() if r.kind == "found"]
    for r in found:
        row = page.row(f"seed {r.seed}")
        assert row[1:3] == [f"{r.metrics['fitness']:.2f}", f"{r.metrics['test_accuracy']:.2f}"]
        assert row[-1] == r.genotype
    for kind, first in (("found", "found, mean of 8"), ("random", "random, mean of 16")):
        values = [r.metrics["fitness"] for r in run.results() if r.kind == kind]
        mean, std = statistics.mean(values), statistics.stdev(values)
        assert page.row(first)[1] == f"{mean:.2f} ± {std:.2f}"
    for words in (
        "regularized_evolution · default",
        "300 of 300",
        "12.5 s",
        "0.21 ms",
        "jaxnas run regularized_evolution --seeds 8",
        "jaxnas 0.1.0 · jax 0.10.2 · python 3.11.7",
        "validation accuracy, % (cifar10, 200 epochs, mean of seeds)",
        "cells evaluated",
        "random search (equal budget)",
        "1,000 repetitions, mean and quartiles",
    ):
        assert words in page.text
    assert "Not finished" not in page.text
    assert "Collapsed" not in page.text
    assert "Mixing weights" not in page.text


def test_the_candidates_are_the_best_different_ones(pages):
    run, page = pages[0]["tabular"], Page(pages[1]["tabular"])
    tried = run.candidates()
    best = {}
    for row in tried:
        best[row.genotype] = max(best.get(row.genotype, -1.0), row.fitness)
    expected = sorted(best.values(), reverse=True)[:20]
    shown = [row for row in page.rows if row[0].isdigit()]
    assert [row[1] for row in shown] == [f"{x:.2f}" for x in expected]
    assert all(f"{best[row[-1]]:.2f}" == row[1] for row in shown)
    assert len({row[-1] for row in shown}) == 20
    assert f"{len(tried):,} measured, {len(best):,} different; failed: none." in page.text


def test_a_supernet_run_shows_weights_losses_and_its_collapse(pages):
    page = Page(pages[1]["supernet"])
    assert "Collapsed: 2 of 4 searches ended in a degenerate cell (seed 1, 3)" in page.text
    for words in ("Mixing weights", "train loss", "valid loss", "entropy", "skips", "1 h 23 min"):
        assert words in page.text
    weights = pages[1]["supernet"].split("Mixing weights</h2>")[1]
    assert all(f">{edge}<" in weights for edge in ("0 → 1", "0 → 2", "1 → 2", "0 → 3", "2 → 3"))
    assert ">nor_conv_3x3<" in weights
    assert "Candidates" not in page.text


def test_dead_cells_are_warned_of(tmp_path):
    with create(tmp_path / "run", config("darts", 3)) as run:
        rows = [Result("found", n, "a", {"fitness": 9.0, "connected": n % 2}) for n in range(3)]
        run.put_results([*rows, Result("random", 0, "b", {"fitness": 9.0, "connected": 0})])
    page = Page(report([tmp_path / "run"]).read_text())
    assert "nothing reaches the output of 2 of 3 found cells (seed 0, 2)" in page.text
    assert page.row("seed 1") == ["seed 1", "9.00", "a"]


def test_the_best_random_cell_is_one_cell_with_all_it_scored(tmp_path):
    """Not the best of each column: the largest loss is nothing to boast of."""
    with create(tmp_path / "run", config("darts", 1)) as run:
        scores = ((90.0, 0.9, "a"), (92.0, 0.5, "b"), (None, None, "c"))
        rows = [
            Result("random", n, cell, {"fitness": fitness, "train_loss": loss})
            for n, (fitness, loss, cell) in enumerate(scores)
        ]
        run.put_results(rows)
    page = Page(report([tmp_path / "run"]).read_text())
    assert page.row("random, best by fitness") == ["random, best by fitness", "92.00", "0.5", "b"]


def test_what_is_measured_now_and_then_is_drawn_and_operations_tried_alone_are_too(tmp_path):
    """A curvature once in ten steps is still a line; the last step need not tell of a collapse."""
    rng = np.random.default_rng(0)
    with create(tmp_path / "run", config("darts", 2)) as run:
        often = [
            Step(i, s, {"train_loss": 1 / i, "collapsed": s}) for i in range(1, 41) for s in (0, 1)
        ]
        rare = [Step(i, s, {"curvature": i / 10}) for i in range(50, 81, 10) for s in (0, 1)]
        kept = [
            Snapshot(80, s, f"strength/{name}", value)
            for s in (0, 1)
            for name, value in (
                ("edge", [0, 5]),
                ("weight", rng.dirichlet(np.ones(5), 2).tolist()),
                ("accuracy", (100 * rng.random((2, 5))).tolist()),
            )
        ]
        kept += [Snapshot(70, s, "accuracy_without", [[50.0] * 5]) for s in (0, 1)]
        run.record(often + rare, kept)
        run.put_meta(operations=list("abcde"), edges=[f"edge {n}" for n in range(6)])
    page = Page(report([tmp_path / "run"]).read_text())
    text = (tmp_path / "run" / "report.html").read_text()
    assert "Collapsed: 1 of 2 searches" in page.text
    assert "Mixing weights" not in page.text
    training = text.split("Training</h2>")[1].split("</svg>")[0]
    assert "curvature" in training
    drawn = text.split("Strength of operations</h2>")[1].split("</svg>")[0]
    assert ">edge 0<" in drawn
    assert ">edge 5<" in drawn
    assert drawn.count("<use") >= 2 * 2 * 5  # a dot for each seed, edge and operation


def test_an_interrupted_run_says_so_and_counts_its_failures(pages):
    run, page = pages[0]["failing"], Page(pages[1]["failing"])
    assert "Not finished: 60 of 120 steps are recorded, the status is “interrupted”" in page.text
    bad = [row for row in run.candidates() if row.fitness is None]
    counts = {
        why: sum(row.failure == why for row in bad) for why in ("non-finite", "out of memory")
    }
    assert min(counts.values()) > 0
    for why, n in counts.items():
        assert f"{n} {why}" in page.text
    listed = [row for row in page.rows if len(row) == 4 and row[2] in counts]
    last = [(str(r.seed), str(r.step), r.failure, r.genotype) for r in bad[::-1][:10]]
    assert [tuple(row) for row in listed] == last


def test_several_runs_are_compared_first_and_follow_one_by_one(pages):
    page = Page(pages[1]["all"])
    assert page.text.index("3 runs compared") < page.text.index("tabular: regularized_evolution")
    assert page.row("tabular")[4:6] == ["91.88 ± 0.61", "83.75 ± 2.38"]
    assert page.row("supernet")[4] == "91.38 ± 0.32"
    assert page.row("failing")[3] == "interrupted"
    assert page.text.count("Found cells") == 3


def test_text_from_outside_is_escaped_everywhere(tmp_path):
    settings = config(HOSTILE, 1, preset=HOSTILE, command=HOSTILE, config={HOSTILE: HOSTILE})
    graph = {"nodes": ["a", HOSTILE], "edges": [[0, 1, HOSTILE], [0, 1, "none"]]}
    with create(tmp_path / "run", {**settings, "devices": [HOSTILE]}) as run:
        run.record(
            [Step(i, 0, {"fitness": float(i), HOSTILE: 1.0, "loss": i / 2}) for i in (1, 2)],
            [Snapshot(i, 0, HOSTILE, [[0.5, 0.5]]) for i in (1, 2)],
            [
                Candidate(1, 0, 0, HOSTILE, 1.0, 1.0),
                Candidate(1, 0, 1, HOSTILE, None, 1.0, HOSTILE),
            ],
        )
        run.put_results([Result("found", 0, HOSTILE, {"fitness": 1.0, HOSTILE: 2.0}, graph)])
        points = {"x": [1, 2], "mean": [1, 2], "low": [1, 1], "high": [2, 2]}
        run.put_curve(Curve(HOSTILE, points, HOSTILE))
        run.put_meta(
            status=HOSTILE,
            fitness_label=HOSTILE,
            cost_label=HOSTILE,
            operations=[HOSTILE, "b"],
            edges=[HOSTILE],
        )
    text = report([run.folder]).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "b"}
    assert "<script" not in text
    assert page.row("1")[-1] == HOSTILE
    assert page.text.count("alert('x')") > 12


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    run = create(tmp_path / "run", config("darts", 2))
    page = Page(report([run.folder]).read_text(encoding="utf-8"))
    assert "Not finished: 0 of ? steps are recorded" in page.text
    with run:
        run.record([Step(1, 0, {"fitness": None, "loss": None})])
    assert "Search" not in Page(report([run.folder]).read_text(encoding="utf-8")).text


def test_normal_and_reduction_cells_are_both_drawn(tmp_path):
    with create(tmp_path / "run", config("darts", 1)) as run:
        run.put_results([Result("found", 0, "x", {"fitness": 1.0}, darts_cells())])
    text = report([run.folder]).read_text(encoding="utf-8")
    assert "The best normal cell found" in text
    assert "The best reduce cell found" in text
    assert len(re.findall(r">c_\{k-2\}</text>", text)) == 2


def test_reading_changes_nothing_but_the_page(tmp_path):
    run = tabular(tmp_path / "run", seeds=2, steps=20)
    before = {p: p.read_bytes() for p in run.folder.iterdir()}
    assert report([run.folder]) == run.folder / "report.html"
    after = {p: p.read_bytes() for p in run.folder.iterdir()}
    assert after.pop(run.folder / "report.html")
    assert after == before


def test_a_run_can_be_reported_while_it_is_written(tmp_path):
    run = tabular(tmp_path / "run", seeds=2, steps=20)
    with open_run(run.folder):
        assert report([run.folder], tmp_path / "out.html").exists()


def test_several_runs_without_a_file_and_no_run_at_all_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`folders` must name a run, and `out` a file"):
        report([tmp_path, tmp_path])
    with pytest.raises(ValueError, match="`folders` must name a run"):
        report([], tmp_path / "x.html")
    with pytest.raises(BrokenRunError, match=r"no config\.json"):
        report([tmp_path])


def test_a_page_is_the_same_each_time(pages):
    run, text = pages[0]["supernet"], pages[1]["supernet"]
    assert report([run.folder]).read_text(encoding="utf-8") == text


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [tabular(tmp_path / x / "run", seeds=2, steps=10).folder for x in ("a", "b")]
    text = report(folders, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "a/run: regularized_evolution" in text
    assert "b/run: regularized_evolution" in text


def test_a_thousand_seeds_are_summed_up_not_listed(tmp_path):
    rng = np.random.default_rng(0)
    with create(tmp_path / "run", config("rea", 1000)) as run:
        run.record(Step(i, s, {"fitness": rng.random()}) for i in (1, 2) for s in range(1000))
        run.put_results(Result("found", s, "g", {"fitness": float(s)}) for s in range(1000))
    page = Page(report([run.folder]).read_text(encoding="utf-8"))
    assert page.row("found, mean of 1000")[1] == "499.50 ± 288.82"
    assert sum(row[0].startswith("seed ") for row in page.rows if row) == 24
    assert "The first 24 of 1000 seeds are listed." in page.text
