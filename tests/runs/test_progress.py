import io
import re

from jaxnas.runs.environment import environment
from jaxnas.runs.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_plain_lines_and_the_last_one_always():
    log = io.StringIO()
    with Progress(300, "rea", stream=log, seconds=1000) as progress:
        for step in (0, 100, 200, 300):
            progress.update(step, 93.123456)
    (line,) = log.getvalue().splitlines()
    assert re.fullmatch(r"rea step 300/300, [\d.e-]+ ms/step, 0:00:0\d elapsed, best 93\.123", line)


def test_a_log_line_says_when_it_will_be_done():
    log = io.StringIO()
    with Progress(300, stream=log, seconds=0) as progress:
        progress.update(0)
        progress.update(10)
    first, second = log.getvalue().splitlines()
    assert first == "step 0/300, 0:00:00 elapsed"
    assert re.search(r"ms/step, .* done at \w{3} \d\d:\d\d$", second)


def test_a_terminal_gets_a_bar():
    screen = Terminal()
    with Progress(10, "rea", stream=screen) as progress:
        progress.update(0)
        progress.update(10, 5.0)
    assert "step 10/10" in screen.getvalue()
    assert "best 5" in screen.getvalue()


def test_the_environment_names_versions_devices_and_command_without_paths(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/some/where/bin/jaxnas", "run", "a b"])
    said = environment()
    assert said["command"] == "jaxnas run 'a b'"
    assert {"jaxnas", "jax", "python", "backend", "devices", "created"} <= {*said}
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d\d:\d\d$", said["created"])
