"""The local language model: tokens a second, with llama.cpp beside it in the same run.

Replies of equal length are drawn from SmolLM2-135M one at a time and 16 at a time, by `llm.local`
and by llama.cpp (`xllamacpp` in an environment of its own, --llama-python; left out otherwise). All
programs are compiled and all prompts read once before; prompts are short, so that decoding counts.
"""

import asyncio
import json
import subprocess
import time
from pathlib import Path

import jax.numpy as jnp
from common import options, publish

from jaxnas.data.gguf_files import find_gguf
from jaxnas.llm.local import load_model, serve

PROMPT = "Count from one to one hundred in words."
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# A server with a slot for each reply; every request has its own seed and ignores the end of text.
LLAMA = """
import json, os, sys, time, urllib.request
from concurrent.futures import ThreadPoolExecutor
import xllamacpp

path, batches, tokens, repeats, prompt, threads = json.loads(sys.argv[1])
rates = {}
for batch in batches:
    params = xllamacpp.CommonParams()
    params.model.path, params.port, params.n_parallel = path, 0, batch
    params.n_ctx, params.cache_ram_mib = 256 * batch, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)

    def ask(seed):
        body = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "seed": seed}
        url, kind = server.listening_address + "/completion", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), kind)
        return json.load(urllib.request.urlopen(request))["tokens_predicted"]

    def together(offset):
        with ThreadPoolExecutor(batch) as pool:
            begin = time.perf_counter()
            drawn = sum(pool.map(ask, range(offset, offset + batch)))
            return drawn / (time.perf_counter() - begin)

    together(0)
    rates[batch] = max(together(batch * (i + 1)) for i in range(repeats))
print(json.dumps(rates), flush=True)
os._exit(0)
"""


def ours(dtype, batches, tokens, repeats):
    """Tokens a second by batch."""
    model, rates = load_model(dtype=DTYPES[dtype]), {}
    ask = [{"role": "user", "content": PROMPT}]
    for batch in batches:
        client = serve(model, batch=batch, context=256)
        best = 0.0
        for repeat in range(repeats + 1):
            begin = time.perf_counter()
            call = client.complete(ask, n=batch, max_tokens=tokens, seed=repeat)
            usage = asyncio.run(call).usage
            rate = (usage.completion if usage else 0) / (time.perf_counter() - begin)
            best = max(best, rate if repeat else 0.0)  # the first one compiles
        rates[batch] = best
    return rates


def llama(python, batches, tokens, repeats, threads):
    """The same by llama.cpp."""
    given = json.dumps([str(find_gguf()), batches, tokens, repeats, PROMPT, threads])
    quiet = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(
        [python, "-c", LLAMA, given], env=quiet, capture_output=True, text=True, check=True
    )
    return {int(batch): rate for batch, rate in json.loads(done.stdout.splitlines()[-1]).items()}


def main():
    parser = options(__doc__)
    parser.add_argument("--llama-python", type=Path, help="a Python that has xllamacpp")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp")
    args = parser.parse_args()
    batches, tokens, repeats = [1, 16], *((8, 1) if args.quick else (96, 3))
    runs = {
        f"jaxnas {d}": ours(d, batches, tokens, repeats) for d in list(DTYPES)[: 2 - args.quick]
    }
    if args.llama_python:
        found = llama(args.llama_python, batches, tokens, repeats, args.threads)
        runs[f"llama.cpp, Q4_1, {args.threads} threads"] = found
    rows = [[name, *(rates[batch] for batch in batches)] for name, rates in runs.items()]
    head = ["SmolLM2-135M, tokens a second", *(f"batch {batch}" for batch in batches)]
    note = (
        f"Best of {repeats} after one that compiles; {tokens} tokens a reply. The runtimes differ in "
        "arithmetic: llama.cpp computes on 4-bit weights and 8-bit activations, and never ends a reply early."
    )
    publish(args, "Local language model", head, rows, note)


if __name__ == "__main__":
    main()
