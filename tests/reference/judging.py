"""A sandbox and a trainer without processes: what they say is read off the source.

A source with `# params=300 acc=80 name=a` in it is a program; the same name is the same program.
Other sources fail with the word they hold: `# fails time`.
"""

import hashlib
import json
import re

from jaxnas.programs.judge import Score
from jaxnas.programs.sandbox.verdict import FAILURES, Verdict

LIKE = re.compile(r"# params=(\d+) acc=([\d.]+|nan) name=(\w+)")


def source(params, acc, name, body=""):
    facts = f"# params={params} acc={acc} name={name}"
    return f"class Model(nn.Module):\n    {facts}\n    x = 1{body}\n"


class Desk:
    """Counts what it checks and trains."""

    def __init__(self):
        self.checked, self.trained = [], []

    def check(self, sources):
        self.checked.append(list(sources))
        return [_verdict(one) for one in sources]

    def train(self, programs, steps):
        facts = [json.loads(one["step"]) for one in programs]
        self.trained.append(([fact["name"] for fact in facts], steps))
        return [_score(float(fact["acc"]), steps) for fact in facts]


def _verdict(text):
    found = LIKE.search(text)
    if not found:
        failure = next((word for word in FAILURES if f"fails {word}" in text), "parse")
        return Verdict(False, failure, f"mend {failure}")
    params, acc, name = found.groups()
    identity = hashlib.sha256(name.encode()).hexdigest()
    program = {"step": json.dumps({"name": name, "acc": acc}).encode()}
    return Verdict(True, None, "", int(params), 1e3, 3, 7, 0.5, "none", identity, program)


def _score(acc, steps):
    if acc != acc:
        return Score(float("nan"), float("nan"), steps // 2, "non-finite", (9.0, 9.0))
    return Score(acc, acc - 1, steps, None, (2.0, 1.0))
