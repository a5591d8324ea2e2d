"""Benchmark this engine against its peers and against the machine's limit.

    from softprompt.bench.plan import Plan
    from softprompt.bench.run import measure

    rows = list(measure(softprompt.load_encoder("mini"), Plan.quick()))

The peers are PEZ as published, a faster PEZ (softprompt.discrete.pez), and a textual inversion loop
(softprompt.bench.textual_inversion). Within a benchmark, all methods use the same prompts, start and threads.
See tests/benchmarks/README.md for the definitions.
"""
