"""Measures this engine against its peers and against the machine.

    from softprompt.bench.plan import Plan
    from softprompt.bench.run import measure

    rows = list(measure(softprompt.load_encoder("mini"), Plan.quick()))

Peers: PEZ as published and a fast one (softprompt.discrete.pez), a loop as textual inversion has it (bench.textual_inversion). All get the same
prompts, the same start and the same threads, and stand side by side in one run. tests/benchmarks/README.md has the definitions.
"""
