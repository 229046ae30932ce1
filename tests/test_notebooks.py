"""Every notebook runs from top to bottom, in tiny form."""

from pathlib import Path

import pytest

LAST_WORDS = {
    "00_first_search": "predicted",
    "01_one_shot": "DrNAS: ",
    "02_optimizers": "the found rule ends",
    "03_recurrent_nodes": "the found node: ",
    "04_llm_search": "reasons: ",
}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path, monkeypatch, request):
    if path.stem == "04_llm_search":
        request.getfixturevalue("cell_table")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("JAXNAS_TINY", "1")
    notebook = nbformat.read(path, as_version=4)
    done = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    last = [c for c in done.cells if c.cell_type == "code"][-1]
    assert LAST_WORDS[path.stem] in last.outputs[0].text
