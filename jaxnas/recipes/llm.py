"""Which language model a recipe asks: an endpoint, the local model, or a recording of either.

Every reply is kept in a recording, in the run's folder unless another is named, so a run that was
killed asks nothing twice, and any run can be repeated by `replay` with neither model nor key.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

from jaxnas.llm import (
    Budget,
    Client,
    Completion,
    Prices,
    Request,
    attempts,
    endpoint,
    record,
    replay,
)
from jaxnas.llm.local import load_model, serve
from jaxnas.llm.record import first_request
from jaxnas.recipes.calls import to_ledger, used
from jaxnas.recipes.settings import refuse_idle, renewable
from jaxnas.runs.store import Run

RECORDING = "replies.jsonl"
HOW = """No language model is configured. Give one of these:
  an endpoint:    --set base_url=http://127.0.0.1:8091/v1 --set model=NAME   (and key_env=VARIABLE)
  the local one:  pip install 'jaxnas[local]' (then it is taken by itself)
  a recording:    --set replay=replies.jsonl   (every run leaves one in its folder)"""


@dataclass(frozen=True)
class ModelConfig:
    """Settings of every recipe that asks a language model.

    Where a limit is reached the search ends early; `jaxnas resume RUN --set requests=N` goes on.

    Attributes:
      proposer: who writes: `llm`, or `random` edits in its place.
      model: the endpoint's name for the model; `local` for the one in this process, which is also
        taken where neither an endpoint nor a recording is named.
      gguf: file of the local model; empty for SmolLM2, from the extra `local`.
      base_url: of an OpenAI-compatible endpoint, up to and without `/chat/completions`.
      key_env: name of the environment variable that holds the endpoint's key; empty for none.
      edits: whether the model is asked for one edit of the parent, not for a whole class.
      grammar: whether replies are held to a grammar of what is wanted: `yes`, `no`, or `auto` for the
        local model alone; of a recording, as it was.
      replay: a recording that answers in the place of a model. It ends where the recorded run did,
        whatever the limits below.
      record: where replies are kept; empty for `replies.jsonl` in the run's folder.
      max_tokens: the most tokens of a reply.
      concurrency: requests under way at once.
      timeout: seconds one request may take.
      requests: the most requests of a run, retries among them; 0 for no limit.
      tokens: the most tokens of a run, read and written; 0 for no limit.
      money: the most a run may cost, in the currency of the prices; 0 for no limit.
      price_prompt: of a million tokens read; negative if unknown.
      price_completion: of a million tokens written; negative if unknown.
    """

    proposer: str = "llm"
    model: str = ""
    gguf: str = ""
    base_url: str = renewable("", moved=True)
    key_env: str = renewable("")
    edits: bool = False
    grammar: str = "auto"
    replay: str = ""
    record: str = ""
    max_tokens: int = 512
    concurrency: int = 4
    timeout: float = renewable(300.0)
    requests: int = renewable(0)
    tokens: int = renewable(0)
    money: float = renewable(0.0)
    price_prompt: float = renewable(-1.0)
    price_completion: float = renewable(-1.0)


class Line(NamedTuple):
    """A line to a model.

    Attributes:
      client: what is asked.
      attach: for `System.attach`: from then on calls are written to the run's ledger, replies to
        its folder, and what it has spent before counts.
      around: `(client) -> client`, another model by the same recording, budget and ledger; models
        that answer differently must have different names.
    """

    client: Client
    attach: Callable[[Run], None]
    around: Callable[[Client], Client]


def connect(config: ModelConfig, model: Client | None = None) -> Line:
    """The model that a configuration names, with its recording, budget, retries and ledger.

    Args:
      config: the settings.
      model: in the place of the one that is named.

    Raises:
      ValueError: if none is named or there, with the ways to name one, or a setting cannot be.
    """
    stacks: dict[str, Client] = {}
    now: list[Callable[[Client], Client]] = [_guard(config, None)]
    if model is None:
        model = _model(config)
        now[0](model)  # refuses what cannot be before the run begins

    def attach(run: Run) -> None:
        now[0] = _guard(config, run)
        stacks.clear()

    def around(client: Client) -> Client:
        async def send(request: Request) -> Completion:
            if client.model not in stacks:
                stacks[client.model] = now[0](client)
            return await stacks[client.model].send(request)

        return client._replace(send=send)

    return Line(around(model), attach, around)


def is_local(config: ModelConfig) -> bool:
    """Whether the model runs in this process: asked for, or nothing else is named."""
    return not config.base_url and not config.replay and config.model in ("", "local")


def asks_nobody(config: ModelConfig) -> bool:
    """Whether random edits take the place of a model.

    Raises:
      ValueError: for an unknown `proposer`, or where settings of a model would do nothing.
    """
    if config.proposer not in ("llm", "random"):
        raise ValueError(f"`proposer` must be llm or random, but got {config.proposer!r}.")
    if config.proposer == "llm":
        return False
    refuse_idle(
        config,
        [field.name for field in fields(ModelConfig) if field.name != "proposer"],
        [type(config)()],
        whose="a language model",
        why="with `proposer` random none is asked",
        remedy="set `proposer` to llm",
    )
    return True


def is_constrained(config: ModelConfig) -> bool:
    """Whether replies are held to a grammar.

    Raises:
      ValueError: for an unknown word in `grammar`.
    """
    if config.grammar not in ("auto", "yes", "no"):
        raise ValueError(f"`grammar` must be auto, yes or no, but got {config.grammar!r}.")
    if config.grammar != "auto":
        return config.grammar == "yes"
    if not config.replay:
        return is_local(config)
    return "grammar" in first_request(config.replay)


def _model(config: ModelConfig) -> Client:
    """The bare model, or its recording."""
    if config.replay:
        return replay(config.replay, config.model or None)
    if config.base_url and config.model:
        key_env = config.key_env or None
        return endpoint(config.base_url, config.model, key_env=key_env, timeout=config.timeout)
    if not is_local(config):
        raise ValueError(HOW)
    try:
        return serve(load_model(config.gguf or None), batch=config.concurrency)
    except ValueError as error:
        raise error if config.model else ValueError(HOW) from error


def _guard(config: ModelConfig, run: Run | None) -> Callable[[Client], Client]:
    """The layers around a model, before the run there is one and within it."""
    if not config.timeout > 0:
        raise ValueError(f"`timeout` must be positive, in seconds, but got {config.timeout}.")
    keep = config.record or (str(run.folder / RECORDING) if run else "")
    given = Prices(config.price_prompt, config.price_completion)
    prices = given if min(given) >= 0 else Prices(0, 0) if is_local(config) else Prices()
    limits = {name: getattr(config, name) or None for name in ("requests", "tokens", "money")}
    budget = Budget(**limits, used=used(run) if run else None)

    def guarded(model: Client) -> Client:
        report = to_ledger(run, prices) if run else None
        if config.replay:
            return attempts(replay(config.replay, model.model), retries=0, on_attempt=report)
        asked = attempts(
            budget.guard(model, prices=prices),
            concurrency=config.concurrency,
            deadline=3 * config.timeout,
            on_attempt=report,
        )
        # Outside of budget and ledger: a reply that is kept is neither paid nor counted again.
        return record(asked, keep) if keep else asked

    return guarded
