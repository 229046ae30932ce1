"""Watches the house as it grows: layers, reading distance, docstrings, README, lazy imports."""

import ast
import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxnas.recipes import RECIPES

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "jaxnas").rglob("*.py"))


def imports_of(path):
    """The files of the package that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("jaxnas."):
                base = ROOT / name.replace(".", "/")
                found |= {p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()}
    return found


def reachable(path):
    todo, seen = [path], set()
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo.extend(imports_of(here))
    return seen


@pytest.mark.parametrize("name", RECIPES)
def test_a_method_is_read_in_a_dozen_files_and_2500_lines(name):
    files = reachable(ROOT / RECIPES[name].method)
    lines = sum(len(f.read_text().splitlines()) for f in files)
    assert len(files) <= 12, sorted(str(f.relative_to(ROOT)) for f in files)
    assert lines <= 2500


def test_reading_distance_follows_imports():
    files = {f.name for f in reachable(ROOT / "jaxnas/cells/trained.py")}
    assert {"trained.py", "fit.py", "darts_net.py", "ops.py", "loop.py", "dataset.py"} <= files


def test_layers_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "jaxnas")))
def test_everything_public_is_documented_and_annotated(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if public:
            assert ast.get_docstring(node), f"{node.name} has no docstring"
        if public and isinstance(node, ast.FunctionDef):
            assert node.returns is not None, f"{node.name} has no return annotation"


def test_no_file_prints_except_the_command_line():
    for path in SOURCES:
        if path.parent.name != "cli":
            calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            names = {c.func.id for c in calls if isinstance(c.func, ast.Name)}
            assert "print" not in names, path


def test_the_readme_table_is_the_recipes():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if "| `" in line]
    listed = {row.split("`")[1]: row for row in rows}
    assert set(listed) == set(RECIPES)
    for name, entry in RECIPES.items():
        assert entry.paper in listed[name]
        assert entry.method in listed[name]
        assert (ROOT / entry.method).exists()
        assert not entry.notebook or (ROOT / entry.notebook).exists()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_three_presets_of_its_config(name):
    module = importlib.import_module(RECIPES[name].module)
    assert set(module.PRESETS) >= {"tiny", "default", "paper"}
    assert all(isinstance(config, module.Config) for config in module.PRESETS.values())
    attributes = "".join(inspect.getdoc(c) or "" for c in module.Config.__mro__)
    for field in module.Config.__dataclass_fields__:
        assert f"{field}:" in attributes, f"{field} is not documented"


def test_help_answers_within_a_second_without_jax():
    code = (
        "import sys\nfrom jaxnas.cli import parser\nparser().format_help()\n"
        "sys.exit('jax' in sys.modules)"
    )
    begin = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert time.perf_counter() - begin < 1.0


def test_every_notebook_defines_nothing_the_library_should_own():
    import json

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                tree = ast.parse("".join(cell["source"]))
                assert not any(isinstance(n, ast.ClassDef) for n in ast.walk(tree)), path
