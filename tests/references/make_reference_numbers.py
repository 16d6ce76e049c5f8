"""Write reference_numbers.json: PyTorch's side of the comparison, for machines without PyTorch.

    python tests/references/make_reference_numbers.py

Only numbers are stored, from which no photograph can be made again; without the photographs their numbers stay as they
are in the file.
"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import parity
import torch

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "scripts" / "benchmarks"))  # torch_reference is there
import torch_parity


def main() -> None:
    stored = json.loads(parity.NUMBERS.read_text()) if parity.NUMBERS.exists() else {}
    for source in parity.SOURCES:
        try:
            stored[source] = numbers(source)
        except FileNotFoundError as error:
            print(f"{source}: left as they are, {error}", file=sys.stderr)
    stored["made_with"] = f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}"
    parity.NUMBERS.write_text(json.dumps(stored, indent=1) + "\n")


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
