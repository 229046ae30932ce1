"""Language models: one small asynchronous protocol, back-ends and wrappers around it.

A `Client` sends a `Request` and gets a `Completion`. Back-ends make one (`endpoint`, `replay`,
`scripted`), wrappers take one and give one back, so a run stacks what it needs, innermost first:

    client = endpoint("http://127.0.0.1:8091/v1", "qwen2.5-coder-1.5b")
    client = Budget(requests=2000, tokens=3_000_000).guard(client)
    client = attempts(client, concurrency=8, on_attempt=ledger.append)
    client = record(client, "replies.jsonl")              # ask once, replay for ever
    client = structured(client)                           # JSON, whatever the server can
    completion = await client.complete(messages, temperature=0.6, max_tokens=400, seed=0)

In the place of the first line, `jaxnas.llm.local.local()` runs a model in this process; it is
imported by that name, since it needs JAX, which the rest does not.

To run it again without a model, `replay("replies.jsonl")` stands in for the first four lines. It has
no budget: where that of the recorded run was spent stands in the recording, and the replay ends there.
`ask_all` waits for many calls from code that is not asynchronous, and
`extract` finds the program in what comes back.
"""

from jaxnas.llm.attempts import Attempt as Attempt, attempts as attempts
from jaxnas.llm.budget import Budget as Budget, BudgetError as BudgetError, Prices as Prices
from jaxnas.llm.client import (
    Client as Client,
    Completion as Completion,
    ModelError as ModelError,
    Reply as Reply,
    Request as Request,
    Usage as Usage,
)
from jaxnas.llm.code import Code as Code, extract as extract
from jaxnas.llm.endpoint import endpoint as endpoint
from jaxnas.llm.loops import ask_all as ask_all
from jaxnas.llm.record import MissError as MissError, record as record, replay as replay
from jaxnas.llm.scripted import scripted as scripted
from jaxnas.llm.structured import structured as structured
