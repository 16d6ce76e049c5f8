"""Write reference_numbers.json and optimizer_numbers.json: PyTorch's numbers, for machines without PyTorch.

    python tests/references/make_numbers.py

Only numbers are stored, from which no photograph can be made again; without the photographs their numbers stay as they
are in the file.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optimizer_parity
import parity
import torch

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))  # torch_reference is there
import torch_parity

MADE_WITH = f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}"


def main() -> None:
    stored = json.loads(parity.NUMBERS.read_text()) if parity.NUMBERS.exists() else {}
    for source in parity.SOURCES:
        try:
            stored[source] = numbers(source)
        except FileNotFoundError as error:
            print(f"{source}: left as they are, {error}", file=sys.stderr)
    stored["made_with"] = MADE_WITH
    parity.NUMBERS.write_text(json.dumps(stored, indent=1) + "\n")

    lines = [f'"made_with": {json.dumps(MADE_WITH)}']
    for case in optimizer_parity.CASES:
        for problem in optimizer_parity.STORED_PROBLEMS:
            last = torch_parity.trajectory(case, *optimizer_parity.PROBLEMS[problem])[-1]
            values = {name: [float(f"{value:.13g}") for value in p.ravel()] for name, p in last.items()}
            lines.append(f"{json.dumps(f'{case} on {problem}')}: {json.dumps(values)}")
    optimizer_parity.NUMBERS.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


def numbers(source: str) -> dict[str, Any]:
    """PyTorch's numbers for one source of pictures."""
    backward = parity.compare_backward(torch_parity, source)
    result: dict[str, Any] = {
        "pictures": parity.checksum(source),
        "logits": parity.compare_logits(torch_parity, source).tolist(),
        "backward": {
            "loss": backward.loss,
            "gradient": parity.fingerprint(backward.gradient),
            "statistics": parity.fingerprint(backward.statistics),
        },
    }
    for name in parity.RUNS:
        run = parity.compare_run(torch_parity, source, name)
        tensors = parity.fingerprint(run.tensors)
        result[name] = {"losses": run.losses, "grad_norms": run.grad_norms, "tensors": tensors}
    return result


if __name__ == "__main__":
    main()
