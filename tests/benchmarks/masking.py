"""What masking costs the supervisor of a step: its CPU per GB of output, in turns with one that masks nothing.

    python -m tests.benchmarks.masking [ROUNDS]

The one that masks nothing is that of schema 2, which is kept among the fixtures.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import string
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from runners import shim
from tests.benchmarks.timing import say
from tests.fixtures.make import HERE, SHIM

LENGTHS = (8, 10, 12, 16, 20, 24, 32, 32, 40, 64)
SIZE, REPEATED = 64 << 20, 16
WORDS = [
    "select",
    "from",
    "model",
    "where",
    "orders",
    "customer",
    "loaded",
    "rows",
    "seconds",
    "running",
    "test",
    "not_null",
    "unique",
    "INFO",
    "OK",
    "view",
]


def main(rounds: int) -> None:
    """Measure and print."""
    chance = random.Random(1)
    secrets = ["".join(chance.choices(string.ascii_letters + string.digits, k=length)) for length in LENGTHS]
    kinds: dict[str, tuple[Path, list[str] | None]] = {
        "masks nothing": (HERE / "schema-2" / SHIM, None),
        "no secrets": (Path(shim.__file__), []),
        "10 secrets": (Path(shim.__file__), secrets),
    }
    measured: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        text.write_bytes(_dbts_lines(chance))
        for _ in range(rounds):
            for kind, (program, values) in kinds.items():
                # a process of its own: what it has used is the supervisor's alone
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    measured[kind].append(pool.submit(_seconds_per_gb, program, values, text).result())
    before = statistics.median(measured["masks nothing"])
    for kind, seconds in measured.items():
        say(
            f"{kind:14} {statistics.median(seconds):.2f} s per GB, {statistics.median(seconds) / before:.2f} times that"
        )


def _dbts_lines(chance: random.Random) -> bytes:
    lines = bytearray()
    while len(lines) < 1 << 20:
        event = {"info": {"level": "info", "msg": " ".join(chance.choices(WORDS, k=12)), "ts": chance.random()}}
        lines += json.dumps(event).encode() + b"\n"
    return bytes(lines) * (SIZE >> 20)


def _seconds_per_gb(program: Path, secrets: list[str] | None, text: Path) -> float:
    loader = SourceFileLoader("measured_shim", str(program))
    spec = spec_from_loader("measured_shim", loader)
    assert spec is not None
    module: Any = module_from_spec(spec)
    loader.exec_module(module)
    with tempfile.TemporaryDirectory(dir=text.parent) as folder:
        script = f"for i in $(seq {REPEATED}); do cat {text}; done"
        step = {"argvs": [["sh", "-c", script]], "cwd": "/", "output_skip": None, "time_limit": 600.0, "grace": 1.0}
        # the supervisor that masks nothing is of an older version, in which the classes had other names
        output_class, step_class = (
            (module.Output, module.Step) if secrets is None else (module.OutputSegments, module.SupervisedStep)
        )
        output = output_class(Path(folder), 64 << 20)
        given = () if secrets is None else (module.Masker([secret.encode() for secret in secrets]),)
        measured = step_class({**step, "interrupt": 15}, output, *given)
        before = resource.getrusage(resource.RUSAGE_SELF)
        measured.run()
        after = resource.getrusage(resource.RUSAGE_SELF)
        copied = output.end / 1e9
    return float((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / copied)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
