"""Pages about searches over programs: archives, ancestors, validity, calls, sources."""

import difflib
import re

import numpy as np
import pytest
from page_reader import Page
from program_runs import programs, source
from synthetic_runs import config, tabular

from jaxnas.report import report
from jaxnas.report.archive import regions
from jaxnas.report.figures import Line, training
from jaxnas.report.lineage import chain
from jaxnas.report.source import cell, changes, is_source, short
from jaxnas.report.validity import shares
from jaxnas.runs import Call, Candidate, Curve, Result, Snapshot, Step, create, spent
from jaxnas.runs.lineage import births, lineage

HOSTILE = "import os\nclass Model:  # <script>alert('x')</script>&\"<b>\n    pass\n"


def section(text, head):
    return text.split(f"{head}</h2>")[1].split("<h2>")[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = programs(tmp_path_factory.mktemp("programs") / "run")
    return run, report([run.folder]).read_text(encoding="utf-8")


def test_the_page_of_a_search_over_programs_stands_alone_and_nests(made):
    page = Page(made[1])
    assert not page.tags & {"script", "link", "img", "image"}
    assert all(v.startswith("#") for n, v in page.attributes if n in ("href", "xlink:href"))
    heads = re.findall(r"<h2>(.*?)</h2>", made[1])
    assert heads == [
        "Found networks",
        "Source of the best",
        "Search",
        "Archives",
        "Lineage",
        "Validity",
        "Calls of language models",
        "Candidates",
        "Settings",
    ]
    assert report([made[0].folder]).read_text(encoding="utf-8") == made[1]


def test_other_runs_have_none_of_these_sections(tmp_path):
    text = report([tabular(tmp_path / "run", seeds=2, steps=20).folder]).read_text()
    heads = set(re.findall(r"<h2>(.*?)</h2>", text))
    assert heads == {"Found cells", "Search", "Candidates", "Settings"}


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_regions_are_where_a_centroid_is_the_nearest(count):
    rng = np.random.default_rng(count)
    centroids = rng.random((count, 2))
    shapes = regions(centroids)
    for x in rng.random((300, 2)):
        nearest = min(range(count), key=lambda n: np.hypot(*(x - centroids[n])))
        holding = [n for n, shape in enumerate(shapes) if inside(shape, x)]
        assert holding == [nearest]
    assert sum(map(area, shapes)) == pytest.approx(1.0)


def inside(corners, x):
    """Whether a point lies left of every edge of a polygon that turns left."""
    pairs = zip(corners, np.roll(corners, -1, 0), strict=True)
    return all((b - a)[0] * (x - a)[1] - (b - a)[1] * (x - a)[0] >= 0 for a, b in pairs)


def area(corners):
    x, y = corners.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def test_an_archive_map_has_a_light_region_for_each_empty_cell_and_the_units_of_its_axes(made):
    run, text = made
    last = run.snapshots()[19].value
    filled = sum(value is not None for value in last)
    svg = section(text, "Archives").split("</svg>")[0]
    assert svg.count("fill: #f1f3f5") == 100 - filled > 0
    for words in ("depth over width", "log10 FLOPs", "validation accuracy, %", ">7.0<", ">0.5<"):
        assert words in svg
    assert f"Archive of networks: {filled} of 100 cells hold a candidate." in Page(text).text
    assert "cells filled, of 100" in svg


def test_an_archive_on_one_axis_has_a_curve_and_no_map(made):
    svg = section(made[1], "Archives").split("</svg>")[1]
    assert "cells filled, of 12" in svg
    assert "#f1f3f5" not in svg


def test_archives_without_labels_and_of_several_numbers_a_cell_are_no_mixing_weights(tmp_path):
    with create(tmp_path / "run", config("llmatic", 2)) as run:
        kept = [[1.0, 5.0], [np.nan, np.nan], [2.0 + 1, 0.0]]
        empty = [[np.nan, np.nan]] * 3
        rows = [
            Snapshot(n, seed, "archive_x", kept if seed and n > 1 else empty)
            for n in (1, 2)
            for seed in (0, 1)
        ]
        run.record([Step(n, s, {"fitness": 1.0}) for n in (1, 2) for s in (0, 1)], rows)
    page = Page(report([run.folder]).read_text())
    assert "Archive of x: 2 of 3 cells hold a candidate (seed 1, the best of 2)." in page.text
    assert "Mixing weights" not in page.text


def family(folder, parents, texts=None, width=2):
    """A run whose candidate of serial number n has fitness n and the parents given."""
    with create(folder, config("llmatic", 1)) as run:
        tried = []
        for n, who in enumerate(parents):
            text = texts[n] if texts else f"g{n + 1}"
            place = (n // width + 1, 0, n % width)
            tried.append(Candidate(*place, text, float(n + 1), 1.0, None, who))
        run.record([Step(1, 0, {"fitness": 1.0})], candidates=tried)
    return run, tried


def test_ancestors_are_found_by_their_serial_numbers_first_parents_first(tmp_path):
    run, tried = family(tmp_path / "run", [None, None, "2", "1 3", "1", "4 5"])
    found = lineage(run, tried[5])
    assert [kin.serial for kin in found] == [6, 4, 1, 5, 3, 2]
    assert [kin.candidate for kin in found] == [tried[n - 1] for n in (6, 4, 1, 5, 3, 2)]
    assert found[0].parents == (4, 5)
    assert [kin.serial for kin in chain(found)] == [1, 4, 6]
    assert [kin.serial for kin in lineage(run, tried[5], most=2)] == [6, 4]
    assert births(run, 0) == [(n, float(n)) for n in range(1, 7)]


def test_slots_that_were_left_empty_have_no_serial_number(tmp_path):
    """EvoPrompting's seeds fill the first step in part only, and are numbered without a gap."""
    places = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)]
    parents = [None, None, "1", "2", "2 1", "4 5"]
    with create(tmp_path / "run", config("evoprompting", 1)) as run:
        tried = [
            Candidate(step, 0, slot, f"g{n}", float(n), 1.0, None, who)
            for n, ((step, slot), who) in enumerate(zip(places, parents, strict=True), 1)
        ]
        run.record([Step(1, 0, {"fitness": 1.0})], candidates=tried)
    found = lineage(run, tried[5])
    assert [kin.candidate.genotype for kin in found] == ["g6", "g4", "g2", "g5", "g1"]
    assert [kin.serial for kin in found] == [6, 4, 2, 5, 1]
    assert births(run, 0) == [(n, float(n)) for n in range(1, 7)]


def test_a_family_that_bites_its_tail_or_has_gaps_ends(tmp_path):
    run, tried = family(tmp_path / "run", ["2", "1 99", "3"])
    assert [kin.serial for kin in lineage(run, tried[1])] == [2, 1]
    assert [kin.serial for kin in chain(lineage(run, tried[1]))] == [1, 2]
    assert "g2" in report([run.folder]).read_text()


def test_the_way_to_the_best_program_is_told_in_differences(tmp_path):
    texts = [source([16]), source([16, 32]), "", source([32, 16]), source([32, 8])]
    texts[2] = "no program\n" + HOSTILE
    run, _ = family(tmp_path / "run", [None, "1", None, "2", "4 3"], texts)
    page_text = report([run.folder]).read_text(encoding="utf-8")
    told = section(page_text, "Lineage")
    summaries = re.findall(r"<summary>(.*?)</summary>", told)
    assert summaries[0].startswith("#1, fitness 1.00: Model ")
    assert summaries[1:] == [
        "#2 from #1, step 1: fitness 1.00 → 2.00, +1 -0 lines",
        "#4 from #2, step 2: fitness 2.00 → 4.00, +1 -1 lines",
        "#5 from #4 and #3, step 3: fitness 4.00 → 5.00, +1 -1 lines",
    ]
    added = [
        re.sub("<.*?>", "", line) for line in re.findall(r'<span class="add">(.*?)</span>', told)
    ]
    assert [re.search(r"Dense\((\d+)\)", line)[1] for line in added] == ["32", "32", "8"]
    assert "stroke-dasharray" in told.split("</svg>")[0]  # the other parent


def test_a_logarithm_of_less_than_a_decade_has_true_numbers():
    loss = np.array([1.9, 1.5, 1.1])
    svg = training([Line("a", np.arange(3.0), loss, loss, loss)], [], x="step", y="loss")
    shown = [float(word) for word in re.findall(r"<text[^>]*>(\d\.?\d*)</text>", svg)]
    assert {1.2, 1.4, 1.6, 1.8} <= {*shown}


def test_the_lineage_ends_at_what_was_found_and_not_at_the_best_fitness(tmp_path):
    run, tried = family(tmp_path / "run", [None, "1", "2", "1", "4", None])
    with run:
        run.put_results([Result("found", 0, tried[2].genotype, {"fitness": 2.9})])
    page = Page(report([run.folder]).read_text())
    assert "The best cell found, #3 of seed 0, and its ancestors" in page.text
    assert page.row("#3") == ["#3", "3.00", "2", "g3"]
    assert not any(row[0] == "#5" for row in page.rows)


def test_changes_are_those_of_difflib_without_file_names():
    before, after = "a\nb\nc\n", "a\nc\nd\n"
    whole = list(difflib.unified_diff(["a", "b", "c"], ["a", "c", "d"], "x", "y", lineterm=""))
    assert changes(before, after) == whole[2:]
    assert changes(before, before) == []


def test_ancestors_that_are_no_programs_are_listed_in_a_table(tmp_path):
    run, _ = family(tmp_path / "run", [None, "1", "2"])
    page = Page(report([run.folder]).read_text())
    assert page.row("#2") == ["#2", "2.00", "1", "g2"]
    assert page.row("#3") == ["#3", "3.00", "2", "g3"]


def test_validity_is_counted_by_reason_and_by_step(made):
    run, page = made[0], Page(made[1])
    tried = run.candidates()
    bad = [row.failure for row in tried if row.fitness is None]
    valid = len(tried) - len(bad)
    assert page.row("valid") == ["valid", f"{valid}", f"{100 * valid / len(tried):.1f} %"]
    for reason in {*bad}:
        n = bad.count(reason)
        assert page.row(reason) == [reason, f"{n}", f"{100 * n / len(tried):.1f} %"]
    third = [row.failure for row in tried if row.step == 3]
    told = {why: n for step, why, n in run.outcomes() if step == 3}
    assert told == {why: third.count(why) for why in {*third}}


def test_many_steps_and_many_reasons_are_put_together():
    reasons = [f"reason {n}" for n in range(12)]
    svg = shares([(n + 1, reasons[n % 12], 1) for n in range(240)], ["valid", *reasons])
    assert "reason 5" in svg
    assert "reason 8" not in svg
    assert "other reasons" in svg
    assert svg.count("fill: #0072b2") <= 62  # sixty bars of four steps, and the legend


def test_calls_are_summed_by_outcome(made):
    run, page = made[0], Page(made[1])
    calls = run.calls()
    total = spent(calls)
    row = page.row("coder-1.5b")
    assert row[1:5] == ["ok", f"{total.answered}", f"{total.prompt:,}", f"{total.completion:,}"]
    assert page.row("all")[2:5] == [f"{len(calls)}", f"{total.prompt:,}", f"{total.completion:,}"]
    assert page.row("all")[5] == row[5] == "30%"
    assert page.row("all")[-1] == f"{120 * 0.0008:.4f}"
    assert f"{len(calls)} calls for 120 different requests, 120 answered" in page.text
    failed = len(calls) - 120
    message = "429 from http://127.0.0.1:8091: too many requests at a time"
    assert page.row(str(failed)) == [str(failed), "limited", "429", message]


@pytest.mark.parametrize(
    ("money", "cost"),
    [
        ((None, None), "unknown"),
        ((0.5, None), "0.5000, unknown for 1 of 2 calls"),
        ((0, 0), "0.0000"),
    ],
)
def test_a_cost_that_is_not_known_is_not_made_up(tmp_path, money, cost):
    with create(tmp_path / "run", config("llmatic", 1)) as run:
        rows = [Call(1, "k", 1, "<b>", "ok", None, 1.0, 10, None, price) for price in money]
        run.put_calls([*rows, rows[0]._replace(outcome="server", money=None, message=HOSTILE)])
    page = Page(report([run.folder]).read_text())
    assert page.row("all")[5] == "-"
    assert page.row("all")[-1] == cost
    assert f"cost: {cost}." in page.text
    assert "Of 2 answers nobody said how many tokens they took." in page.text
    assert not page.tags & {"b", "script"}


def test_a_program_has_a_short_name_in_tables_and_unfolds():
    text = source([16, 32])
    assert re.fullmatch(r"Model [0-9a-f]{8} \(12 lines, \d+ bytes\)", short(text))
    assert short(text) != short(source([16, 33]))
    assert short("I am sorry,\nno.").startswith("I am sorry, ")
    assert is_source("x" * 2000)
    assert not is_source("Genotype(normal=[" + "('sep_conv_3x3', 0), " * 16)
    assert (short("|a~0|"), cell("|a~0|")) == ("|a~0|", "|a~0|")
    assert "<script" not in cell(HOSTILE)
    assert len(short(HOSTILE)) < 60


def test_hostile_programs_stay_text(tmp_path):
    later = HOSTILE.replace("pass", "x = '</pre></code><script>1</script>'")
    with create(tmp_path / "run", config("llmatic", 1)) as run:
        run.record(
            [Step(1, 0, {"fitness": 2.0})],
            candidates=[
                Candidate(1, 0, 0, HOSTILE, 1.0, 1.0),
                Candidate(1, 0, 1, HOSTILE, None, 1.0, "forbidden"),
                Candidate(2, 0, 0, later, 2.0, 1.0, None, "1"),
            ],
        )
        run.put_results([Result("found", 0, later, {"fitness": 2.0})])
    text = report([run.folder]).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "b"}
    assert "<script" not in text
    assert page.text.count("alert('x')") >= 5
    assert page.text.count("</pre></code><script>1</script>") >= 3


def test_curves_of_training_are_named_after_their_programs(tmp_path):
    texts = [source([16]), "# $\\frac$\nx = 1\n"]
    points = {name: [1.0, 0.5] for name in ("x", "mean", "low", "high")}
    with create(tmp_path / "run", config("evoprompting", 2)) as run:
        for n, text in enumerate(texts):
            run.put_curve(Curve(f"training/found/{n}", points, text))
        run.put_results([Result("found", 0, texts[0], {"fitness": 2.0})])
    page = report([run.folder]).read_text(encoding="utf-8")
    svg = section(page, "Training of cells").split("</svg>")[0]
    assert all(short(text) in svg for text in texts)


def test_a_run_that_is_under_way_shows_its_best_program_so_far(tmp_path):
    with create(tmp_path / "run", config("llmatic", 1)) as run:
        run.record([Step(1, 0, {})], candidates=[Candidate(1, 0, 0, source([7]), 1.0, 1.0)])
    text = report([run.folder]).read_text(encoding="utf-8")
    assert "nn.Dense(7)" in section(text, "Source of the best")


def test_the_front_is_listed_by_size_and_hand_made_programs_are_named(tmp_path):
    run = create(tmp_path / "run", config("evoprompting", 1))
    points = [[1, 5210.0, 10.0], [2, 15210.0, 30.0], [3, 480.0, 12.0], [4, 9e5, 9.0], [5, 1e6, 9.5]]
    axes = ["trainable parameters", "error, %"]
    search = {"measured": points, "best": [1, 3, 4]}
    with run:
        run.put_meta(front={"axes": axes, "handmade": 2, "searches": [search]})
    text = section(report([run.folder]).read_text(encoding="utf-8"), "Front")
    assert "3 of 5 programs" in text
    assert re.findall(r'<td class="number">(.*?)</td>', text) == [
        *("3", "480", "12.00"),
        *("1 (hand-made)", "5,210", "10.00"),
        *("4", "900,000", "9.00"),
    ]
    svg = text.split("</svg>")[0]
    assert all(f">{size}<" in svg for size in ("1,000", "3,000", "10,000", "100,000", "1,000,000"))
    assert "$" not in svg
