"""Deletes each room in turn, with its recipes, tests and notebooks, and runs what is left.

`make rooms` proves that a room can go: nothing outside it may break. Rooms that others stand on
(core, nn, data, llm, runs, train, cells) take those with them, so only the top rooms are deleted
alone.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOUNDATIONS = (
    "core", "data", "nn", "llm", "runs", "train", "evolve", "cells", "recipes", "report", "cli",
)  # fmt: skip


def main() -> int:
    """Tries every room that is no foundation.

    Returns:
      0 if what is left passes each time.
    """
    rooms = sorted(p.name for p in (ROOT / "jaxnas").iterdir() if (p / "__init__.py").exists())
    failed = [room for room in rooms if room not in FOUNDATIONS and not stands_without(room)]
    sys.stdout.write(f"rooms that cannot be deleted: {', '.join(failed) or 'none'}\n")
    return bool(failed)


def stands_without(room: str) -> bool:
    """Runs the tests of a copy without one room."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "jaxnas"
        ignore = shutil.ignore_patterns(".venv", ".git", ".cache", "runs*", "__pycache__")
        shutil.copytree(
            ROOT, copy, ignore=lambda d, n: set() if "jaxnas/jaxnas" in d else ignore(d, n)
        )
        gone = remove(copy, room)
        sys.stdout.write(f"without {room}: also without {', '.join(gone) or 'nothing'}\n")
        tests = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        env = {
            "PYTHONPATH": str(copy),
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "JAX_PLATFORMS": "cpu",
        }
        shared = {"JAXNAS_DATA": str(ROOT.parent / "shared" / "data")}
        return subprocess.run(tests, cwd=copy, env=env | shared, check=False).returncode == 0


def remove(copy: Path, room: str) -> list[str]:
    """Deletes a room, what imports it, and the lines that name it.

    Returns:
      What went with it.
    """
    shutil.rmtree(copy / "jaxnas" / room)
    shutil.rmtree(copy / "tests" / room, ignore_errors=True)
    gone: list[str] = []
    again = True
    while again:
        again = False
        broken = [f"jaxnas.{room}", *(module(g) for g in gone if g.endswith(".py"))]
        pattern = re.compile("|".join(rf"{re.escape(name)}\b" for name in broken))
        for path in [
            *copy.glob("jaxnas/recipes/*.py"),
            *copy.rglob("tests/**/*.py"),
            *copy.glob("notebooks/*"),
        ]:
            text = path.read_text()
            if path.name != "__init__.py" and path.name != "rooms.py" and pattern.search(text):
                path.unlink()
                gone.append(str(path.relative_to(copy)))
                again = True
    forget(copy, gone, room)
    return gone


def module(path: str) -> str:
    """How a file is imported; what helps tests stands in `tests/reference`."""
    return path.removesuffix(".py").removeprefix("tests/").replace("/", ".")


def forget(copy: Path, gone: list[str], room: str) -> None:
    """Takes recipes that are gone out of the dict, the README and the layers."""
    names = [Path(g).stem for g in gone if g.startswith("jaxnas/recipes")]
    index = copy / "jaxnas/recipes/__init__.py"
    readme = copy / "README.md"
    for name in names:
        index.write_text(
            re.sub(rf'    "{name}": Entry\(.*?\n    \),\n', "", index.read_text(), flags=re.S)
        )
        kept = [line for line in readme.read_text().splitlines() if f"| `{name}`" not in line]
        readme.write_text("\n".join(kept) + "\n")
    if any(g.startswith("notebooks") for g in gone):
        index.write_text(index.read_text().replace('"notebooks/00_first_search.ipynb"', '""'))
    project = copy / "pyproject.toml"
    text = project.read_text().replace(f'  "{room}",\n', "").replace(f'"jaxnas.{room}", ', "")
    project.write_text(re.sub(rf"\b{room} \| | \| {room}\b", "", text))  # one of several in a layer


if __name__ == "__main__":
    sys.exit(main())
