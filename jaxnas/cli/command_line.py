"""What is typed after `jaxnas`: the commands, their options and what each of them does.

Wrong input exits with code 2 and one clear line on stderr. JAX is imported only by the commands
that compute, so that `--help` answers at once.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxnas import __version__
from jaxnas.cli.compilation_cache import cache_compilation
from jaxnas.cli.ctrl_c import stoppable
from jaxnas.cli.display import progress, show_facts, show_outcome, show_table
from jaxnas.recipes import RECIPES

# Spaces of `describe`, with the channels and layers of their papers.
SPACES = {"nas_bench_201": (16, 5), "darts": (36, 20), "nasnet": (36, 20)}
MISSING = {"qdax": "pip install --no-deps qdax==0.5.0"}


def main(argv: list[str] | None = None) -> None:
    """Runs one command; see the module's docstring.

    Raises:
      SystemExit: with code 2 for wrong input, 130 after Ctrl-C.
    """
    top = parser()
    args, unknown = top.parse_known_args(argv)
    try:
        _refuse(unknown, top, args.parser)
        with stoppable():
            args.command(args)
    except KeyboardInterrupt:
        where = getattr(args, "out", None) or getattr(args, "run", "")
        hint = f" Continue with: jaxnas resume {where}" if where else ""
        print(f"jaxnas: interrupted.{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"jaxnas: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    about = "Architecture search in JAX."
    # With abbreviations `--seed 0` would be read as `--seeds 0`.
    top = argparse.ArgumentParser(prog="jaxnas", description=about, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"jaxnas {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(command=function, parser=sub)
        return sub

    _add_running(command)
    _add_reading(command)
    return top


def _refuse(unknown: list[str], *parsers: argparse.ArgumentParser) -> None:
    """Raises for arguments there are not, naming options spelt alike or of which help says so."""
    if not unknown:
        return
    actions = [action for each in parsers for action in each._actions]
    known = {name: action.help or "" for action in actions for name in action.option_strings}
    name = unknown[0].partition("=")[0]
    near = difflib.get_close_matches(name, known, n=1)
    near += [other for other, text in known.items() if name.strip("-") in text.split()]
    hints = [f"{other} ({known[other]})" for other in near if name.startswith("-")]
    meant = f"; nearest: {', '.join(hints)}" if hints else ""
    raise ValueError(f"unknown arguments {' '.join(unknown)}{meant}.")


def _add_running(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that compute."""
    sub = command("run", _run, "run a search into a new folder")
    sub.add_argument("recipe", metavar="RECIPE", help=", ".join(RECIPES))
    sub.add_argument("--preset", default="default", help="tiny, default or paper")
    _add_settings(sub)

    sub = command("train", _train, "train a genotype for long into a new folder")
    sub.add_argument("space", metavar="SPACE", help="nas_bench_201, darts, nasnet")
    sub.add_argument("genotype", metavar="GENOTYPE", help="its text")
    sub.add_argument("--data", metavar="NAME", help="data set; default: the preset's")
    sub.add_argument("--preset", default="default", help="tiny, default, paper, imagenet")
    sub.add_argument("--export", type=Path, metavar="DIR", help="export it afterwards")
    _add_settings(sub)

    sub = command("resume", _resume, "continue a run, bit for bit")
    sub.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    what = "a setting that may change, such as the most requests of a model"
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=what)
    _add_json(sub)

    sub = command("export", _export, "write a trained network, a found optimizer or program")
    sub.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    sub.add_argument("--out", type=Path, metavar="PATH", help="default: RUN/model, or RUN")
    sub.add_argument("--seed", type=int, metavar="N", help="default: the best, where that is fair")
    _add_json(sub)


def _add_reading(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that only look."""
    _add_json(command("list", _list, "show what can be run"))

    sub = command("report", _report, "write one HTML page about one or more runs")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    sub.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the first")

    sub = command("describe", _describe, "parameters and multiply-adds of a genotype")
    sub.add_argument("space", metavar="SPACE", help=", ".join(SPACES))
    sub.add_argument("genotype", metavar="GENOTYPE", help="its text, name or official index")
    sub.add_argument("--classes", type=int, default=10, metavar="N")
    sub.add_argument("--channels", type=int, metavar="C", help="of the first stage; 16, DARTS 36")
    sub.add_argument("--layers", type=int, metavar="L", help="cells: 5 per stage, DARTS 20 in all")
    sub.add_argument("--size", type=int, default=32, help="height and width of an image")
    sub.add_argument("--stem", default="cifar", help="of a DARTS network: cifar or imagenet")
    sub.add_argument("--auxiliary", action="store_true", help="of a DARTS network: count it too")
    _add_json(sub)

    _add_json(command("data", _data, "show which data sets are here and how to get the others"))
    _add_json(command("doctor", _doctor, "show versions, devices and what is missing"))

    if find_spec("jaxnas.programs"):
        sub = command("sandbox", _sandbox, "check the source of one program without trusting it")
        sub.add_argument("file", type=Path, metavar="FILE", help="of a network or triplet function")
        sub.add_argument(
            "--task", default="mnist1d", metavar="NAME", help="data set, or clrs_ALGORITHM"
        )
        sub.add_argument("--level", default="auto", help="process, landlock, bubblewrap or auto")
        _add_json(sub)

    sub = command("cite", _cite, "print the BibTeX entry of a system")
    sub.add_argument("recipe", metavar="RECIPE", nargs="?", help="all, if left out")


def _add_settings(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--seeds", type=int, default=1, metavar="N", help="how many side by side")
    sub.add_argument("--key", type=int, default=0, help="seed of the random numbers")
    sub.add_argument("--out", type=Path, metavar="DIR", help="new folder of the run")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    _add_json(sub)


def _add_json(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _list(args: argparse.Namespace) -> None:
    if args.json:
        rows = {name: {"title": e.title, "paper": e.paper} for name, e in RECIPES.items()}
        print(json.dumps(rows))
        return
    show_table(
        ("recipe", "what it is", "paper"), [(n, e.title, e.paper) for n, e in RECIPES.items()]
    )


def _run(args: argparse.Namespace) -> None:
    settings = dict(_setting(text) for text in args.set)
    from jaxnas.recipes import conduct

    config = conduct.configure(args.recipe, args.preset, settings)
    how = _begun(args, args.recipe)
    outcome = conduct.start(args.recipe, config, args.out, **how)
    show_outcome(outcome, as_json=args.json)


def _begun(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """How a new run is started; its folder, where none was given, is named after what it is."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    args.out = args.out or Path("runs") / f"{name}-{args.preset}-{stamp}"
    cache_compilation()
    return {
        "preset": args.preset,
        "seeds": args.seeds,
        "key": args.key,
        "progress": progress,
    }


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`--set` takes KEY=VALUE, but got {text!r}.")
    return name.strip(), value.strip()


def _train(args: argparse.Namespace) -> None:
    settings = dict(_setting(text) for text in args.set)
    from jaxnas.recipes import training

    config = training.configure(args.space, args.genotype, args.preset, settings, args.data)
    how = _begun(args, f"train-{args.space}")
    from jaxnas.recipes import training_run

    outcome = training_run.start(config, args.out, **how)
    if args.export:
        from jaxnas.recipes.export import export

        export(args.out, args.export)
    show_outcome(outcome, as_json=args.json)


def _export(args: argparse.Namespace) -> None:
    from jaxnas.recipes import load, training
    from jaxnas.recipes.export import FILES, export
    from jaxnas.runs.store import open_run

    cache_compilation()
    run = open_run(args.run)
    recipe = run.config.get("recipe")
    if recipe == training.NAME:
        out = export(args.run, args.out or args.run / "model", seed=args.seed)
        files = [out / name for name in FILES]
    elif hasattr(load(str(recipe)), "export"):
        files = load(str(recipe)).export(run, args.out or args.run, args.seed)
    else:
        raise ValueError(
            f"{args.run} is a run of {recipe}, which has nothing to export; train what it found first."
        )
    show_facts({file.name: str(file) for file in files}, as_json=args.json)


def _resume(args: argparse.Namespace) -> None:
    from jaxnas.recipes import conduct, training, training_run
    from jaxnas.runs.store import open_run

    settings = dict(_setting(text) for text in args.set)
    cache_compilation()
    trained = open_run(args.run).config.get("recipe") == training.NAME
    resume = training_run.resume if trained else conduct.resume
    show_outcome(resume(args.run, settings, progress=progress), as_json=args.json)


def _report(args: argparse.Namespace) -> None:
    from jaxnas.report import report

    print(report(args.runs, args.out or args.runs[0] / "report.html"))


def _describe(args: argparse.Namespace) -> None:
    if args.space not in SPACES:
        raise ValueError(f"Unknown space {args.space!r}; there are {', '.join(SPACES)}.")
    channels, layers = SPACES[args.space]
    args.channels = channels if args.channels is None else args.channels
    args.layers = layers if args.layers is None else args.layers
    for name in ("classes", "channels", "layers", "size"):
        if getattr(args, name) < 1:
            raise ValueError(f"`--{name}` must be at least 1, but got {getattr(args, name)}.")
    shape = {"classes": args.classes, "channels": args.channels, "layers": args.layers}
    describe = _nas_bench_201 if args.space == "nas_bench_201" else _darts
    show_facts({"space": args.space, **describe(args, shape)}, as_json=args.json)


def _nas_bench_201(args: argparse.Namespace, shape: dict[str, int]) -> dict[str, Any]:
    from jaxnas.cells import nas_bench_201 as space

    genotype = _genotype(args.genotype)
    return {
        "genotype": space.to_text(genotype),
        **shape,
        "params": space.params(genotype, **shape),
        "flops": space.flops(genotype, size=args.size, **shape),
        "canonical": space.canonical(genotype),
    }


def _darts(args: argparse.Namespace, shape: dict[str, Any]) -> dict[str, Any]:
    from jaxnas.cells import cell_text, darts_net, darts_space, nasnet_space

    space = darts_space if args.space == "darts" else nasnet_space
    genotype = space.from_text(args.genotype)
    params = darts_net.params(genotype, stem=args.stem, **shape)
    facts = {"genotype": cell_text.to_text(genotype), **shape, "stem": args.stem, "params": params}
    if args.auxiliary:
        both = darts_net.params(genotype, stem=args.stem, auxiliary=True, **shape)
        facts["auxiliary_params"] = both - params
    return facts


def _genotype(text: str) -> Any:
    from jaxnas.cells import nas_bench_201, tabular

    if not text.lstrip("-").isdigit():
        return nas_bench_201.from_text(text)
    from jaxnas.data.tables import nas_bench_201 as table

    return tabular.from_official_index(table(), int(text))


def _data(args: argparse.Namespace) -> None:
    from jaxnas.data.catalog import survey

    rows = survey()
    if args.json:
        print(json.dumps({row.name: row._asdict() for row in rows}, default=str))
        return
    here = [(r.name, "yes" if r.here else "no", r.where if r.here else r.how) for r in rows]
    show_table(("data set", "here", "where it is, or how to get it"), here)


def _doctor(args: argparse.Namespace) -> None:
    from importlib.metadata import PackageNotFoundError, version

    from jaxnas.data.catalog import survey
    from jaxnas.runs.environment import environment

    facts: dict[str, Any] = environment()
    del facts["created"], facts["command"]
    for name in ("jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "evosax", "qdax"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = f"missing: {MISSING.get(name, 'pip install ' + name)}"
    facts["compilation cache"] = cache_compilation()
    if find_spec("jaxnas.programs"):
        from jaxnas.programs.sandbox import isolation

        missing = [f"{level}: {why}" for level, why in isolation.survey().items() if why]
        facts["sandbox"] = isolation.reached(isolation.resolve("auto"))
        facts["sandbox levels missing"] = "; ".join(missing) or "none"
    facts["data sets missing"] = ", ".join(r.name for r in survey() if not r.here) or "none"
    show_facts(facts, as_json=args.json)


def _sandbox(args: argparse.Namespace) -> None:
    source = args.file.read_text()
    from jaxnas.programs.sandbox import Pool
    from jaxnas.recipes.program_subjects import lesson

    wanted = lesson(args.task)
    with Pool(wanted.task, args.level, workers=1, limits=wanted.limits) as pool:
        [verdict] = pool.check([source])
    facts = verdict._replace(seconds=round(verdict.seconds, 3))._asdict()
    del facts["programs"], facts["layout"]
    show_facts(facts, as_json=args.json)
    if not verdict.ok:
        raise SystemExit(1)


def _cite(args: argparse.Namespace) -> None:
    if args.recipe and args.recipe not in RECIPES:
        raise ValueError(f"Unknown recipe {args.recipe!r}; there are {', '.join(RECIPES)}.")
    for name in [args.recipe] if args.recipe else RECIPES:
        print(RECIPES[name].bibtex)
