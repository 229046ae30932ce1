"""Pages of searches over expressions: formula, shape, and methods beside that are no rules."""

import pytest
from synthetic_runs import config

from jaxnas.report import report
from jaxnas.runs import Result, create

HOSTILE = "<script>\\frac{a}{b}&"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = create(tmp_path_factory.mktemp("page") / "run", config("optimizer_search", 1))
    shape = {"x": [-1.0, 0.0, 1.0], "y": [None, 0.0, 1.0]}
    graph = {"tree": ["mul", ["x"], ["tanh", ["x"]]], "latex": HOSTILE, "shape": shape}
    with run:
        run.put_meta(noun="rule", beside={"APGD": 0.3822, "momentum PGD": 0.37})
        run.put_results(
            [
                Result("found", 0, "x * tanh(x)", {"fitness": 0.38, "test_rate": 0.1}, graph),
                Result("hand-made", 0, "sg", {"fitness": 0.375, "test_rate": 0.2}, graph),
            ]
        )
    return report([run.folder]).read_text()


def row(page, first):
    start = page.index(f">{first}</td>")
    return page[start : page.index("</tr>", start)].split("<td")[1:]


def test_methods_that_are_no_rules_stand_in_the_table_with_their_fitness_alone(page):
    for name, shown in (("APGD", "0.382"), ("momentum PGD", "0.37")):
        cells = [cell.split(">")[1].split("<")[0] for cell in row(page, name)]
        assert cells == [shown, "", ""]  # fitness, rate, genotype
    assert page.index(">hand-made</td>") < page.index(">APGD</td>")


def test_the_formula_is_shown_and_written_safely(page):
    assert "<code>&lt;script&gt;\\frac{a}{b}&amp;</code>" in page


def test_functions_of_one_variable_are_drawn(page):
    assert "<h2>Shapes of rules</h2>" in page
    assert page.count("Dashed: hand-made.") == 1
