"""Small faults put into the code, one at a time: do the tests of their module notice?

    python scripts/campaigns/mutants.py --count 200

Each mutant changes one place of `optim/`, `data/batches.py`, labels or checkpoints (a comparison, an operator, a
number, a condition, a dropped statement) in a copy of the project, and runs the tests of that module there. Survivors
are printed for somebody to look at: some change nothing that can be seen. Takes about ten seconds a mutant.
"""

import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from campaign import Parser, print_setting

ROOT = Path(__file__).parents[2]
# The tests of each module; where a file is long, those of its tests that are about it.
TESTS = {
    "jaxfood/optim/transforms.py": ["test_optimizers.py"],
    "jaxfood/optim/optimizers.py": ["test_optimizers.py"],
    "jaxfood/optim/notes.py": ["test_notes_optimizers.py"],
    "jaxfood/optim/schedules.py": ["test_schedules.py"],
    "jaxfood/optim/losses.py": ["test_losses.py"],
    "jaxfood/optim/plateau.py": ["test_plateau.py"],
    "jaxfood/data/batches.py": ["test_batches.py", "test_streaming.py"],
    "jaxfood/data/labels.py": ["test_folder.py", "test_splits.py", "test_records.py"],
    "jaxfood/data/lists.py": ["test_folder.py"],
    "jaxfood/data/walk.py": ["test_folder.py", "test_remote.py"],
    "jaxfood/data/records.py": ["test_records.py"],
    "jaxfood/runs/checkpoints.py": ["test_checkpoint.py"],
    "jaxfood/runs/pictures.py": ["test_run_pictures.py"],
    "jaxfood/runs/progress.py": ["test_checkpoint.py", "test_loop.py"],
}
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}


def main() -> None:
    """Sample, run, print."""
    arguments = Parser(__doc__, count=200).parse_args()
    print_setting()
    mutants = [(name, number) for name in TESTS for number in range(len(list(places(read(name)))))]
    sample = random.Random(arguments.seed).sample(mutants, min(arguments.count, len(mutants)))
    outcomes: Counter[str] = Counter()
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "project"
        for name in ("jaxfood", "configs", "scripts", "tests"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "NOTES.md"):
            shutil.copy(ROOT / name, place)
        for name in sorted({name for name, _ in sample}):
            if survives(place, name, (ROOT / name).read_text(encoding="utf-8")) != "survived":
                sys.exit(f"the tests of {name} fail without any change: {', '.join(TESTS[name])}")
        for name, number in sorted(sample):
            text, description = mutate(name, number)
            outcome = survives(place, name, text)
            outcomes[outcome] += 1
            if outcome == "survived":
                survivors.append(f"{name}:{description}")
                print(f"survived: {survivors[-1]}", flush=True)
    print(f"{sum(outcomes.values())} of {len(mutants)} possible mutants: {dict(outcomes)}")
    sys.exit(len(survivors) > 0.2 * len(sample))


def read(name: str) -> ast.Module:
    """The module's tree, without its docstrings."""
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every place that can be changed, and how."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield node, "comparison"
        elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS:
            yield node, "operator"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield node, "unary"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield node, "constant"
        elif isinstance(node, ast.If | ast.IfExp):
            yield node, "condition"


def mutate(name: str, number: int) -> tuple[str, str]:
    """The module's text with its change of that number, and the change in words."""
    tree = read(name)
    node, kind = list(places(tree))[number]
    before = ast.unparse(copy.deepcopy(node)).partition("\n")[0]
    if kind == "comparison":
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif kind == "operator":
        node.op = SWAPS[type(node.op)]()
    elif kind == "unary":
        node.op = ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        if isinstance(node.op, ast.Not):
            node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif kind == "constant":
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        node.test = ast.UnaryOp(ast.Not(), node.test)
    after = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).partition("\n")[0]
    return ast.unparse(ast.fix_missing_locations(tree)), f"{node.lineno}: {before}  ->  {after}"


def survives(place: Path, name: str, text: str) -> str:
    """Whether the tests pass with the change."""
    original = (place / name).read_text(encoding="utf-8")
    (place / name).write_text(text, encoding="utf-8")
    tests = [f"tests/{test}" for test in TESTS[name]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(
            command, cwd=place, capture_output=True, timeout=300, env=environment(place), check=False
        )
    except subprocess.TimeoutExpired:
        return "caught: it never ends"
    finally:
        (place / name).write_text(original, encoding="utf-8")
    if text == original and ended.returncode:
        print(ended.stdout.decode(errors="replace")[-3000:])
    return "survived" if ended.returncode == 0 else "caught"


def environment(place: Path) -> dict[str, str]:
    """The tests' environment: the copy's code, and compiled programs of all mutants in one place."""
    compiled = str(place / ".compiled")
    return {**os.environ, "PYTHONPATH": str(place), "JAX_COMPILATION_CACHE_DIR": compiled, "JAXFOOD_TEST_DATA": "none"}


if __name__ == "__main__":
    main()
