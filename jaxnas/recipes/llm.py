"""Which language model a recipe asks: an endpoint, the local model, or a recording of either.

Every reply is kept in a recording, in the run's folder unless another is named, so a run that was
killed asks nothing twice, and any run can be repeated by `replay` with neither model nor key.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from jaxnas.recipes.calls import to_ledger, used
from jaxnas.runs.store import Run

RECORDING = "replies.jsonl"
HOW = """No language model is configured. Give one of these:
  an endpoint:    --set base_url=http://127.0.0.1:8091/v1 --set model=NAME   (and key_env=VARIABLE)
  the local one:  pip install 'jaxnas[local]', then --set model=local
  a recording:    --set replay=replies.jsonl   (every run leaves one in its folder)"""


@dataclass(frozen=True)
class ModelConfig:
    """Settings of every recipe that asks a language model.

    Attributes:
      model: the endpoint's name for the model, or `local`.
      base_url: of an OpenAI-compatible endpoint, up to and without `/chat/completions`.
      key_env: name of the environment variable that holds the endpoint's key; empty for none.
      replay: a recording that answers in the place of a model.
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

    model: str = ""
    base_url: str = ""
    key_env: str = ""
    replay: str = ""
    record: str = ""
    max_tokens: int = 512
    concurrency: int = 4
    timeout: float = 300.0
    requests: int = 0
    tokens: int = 0
    money: float = 0.0
    price_prompt: float = -1.0
    price_completion: float = -1.0


class Line(NamedTuple):
    """A line to a model.

    Attributes:
      client: what is asked.
      attach: for `System.attach`: from then on calls are written to the run's ledger, replies to
        its folder, and what it has spent before counts.
    """

    client: Client
    attach: Callable[[Run], None]


def connect(config: ModelConfig) -> Line:
    """The model that a configuration names, with its recording, budget, retries and ledger.

    Args:
      config: the settings.

    Raises:
      ValueError: if none is named, with the ways to name one, or a setting cannot be.
    """
    model = _model(config)
    now = [_guarded(config, model, None)]

    def attach(run: Run) -> None:
        now[0] = _guarded(config, model, run)

    async def send(request: Request) -> Completion:
        return await now[0].send(request)

    return Line(Client(model.model, send), attach)


def _model(config: ModelConfig) -> Client:
    """The bare model, or its recording."""
    if config.replay:
        return replay(config.replay, config.model or None)
    if config.base_url and config.model:
        key_env = config.key_env or None
        return endpoint(config.base_url, config.model, key_env=key_env, timeout=config.timeout)
    raise ValueError(HOW)


def _guarded(config: ModelConfig, model: Client, run: Run | None) -> Client:
    keep = config.record or (str(run.folder / RECORDING) if run else "")
    known = min(config.price_prompt, config.price_completion) >= 0
    prices = Prices(config.price_prompt, config.price_completion) if known else Prices()
    limits = {name: getattr(config, name) or None for name in ("requests", "tokens", "money")}
    budget = Budget(**limits, used=used(run) if run else None)
    client = record(model, keep) if keep and not config.replay else model
    return attempts(
        budget.guard(client, prices=prices),
        concurrency=config.concurrency,
        deadline=3 * config.timeout,
        on_attempt=to_ledger(run, prices) if run else None,
    )
