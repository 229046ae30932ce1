"""The command line: `jaxnas list | run | train | resume | export | report | describe | ...`."""

from jaxnas.cli.command_line import main as main, parser as parser
