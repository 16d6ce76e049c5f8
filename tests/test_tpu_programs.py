"""`scripts/tpu/compile_programs.py`: what it reads off a program, and one compiled for a TPU where libtpu is."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import compile_programs
import pytest
from compile_programs import TABLE, Program, configuration, main, markdown, run_table
from program_text import collectives, large_memory_bytes

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "tpu" / "compile_programs.py"

HLO = """
  %all-reduce.1 = (f32[64]{0:T(128)}, f32[3,3,64,128]{3,2,1,0:T(8,128)S(1)}) all-reduce(%a, %b), replica_groups={{0,1}}
  %all-reduce-start.2 = bf16[10]{0} all-reduce-start(%c), replica_groups={{0,1}}
  %all-gather-start.3 = (f32[4]{0}, f32[4]{0}) all-gather-start(%d), dimensions={0}
  %sum = f32[] add(%all-reduce.1, %e)
"""
RESULT: dict[str, Any] = {
    **dataclasses.asdict(Program(chips=4, parallel="pmap", sync=False, accumulate=2)),
    "hosts": 1,
    "bytes": 2.56e9,
    "large_memory_bytes": 1.28e9,
    "operations": 1.28e12,
    "temporary_bytes": 5e8,
    "collectives": {"all-reduce": {"count": 3, "bytes": 51_000_000}},
}


def test_collectives_are_counted_with_their_bytes() -> None:
    assert collectives(HLO) == {
        "all-reduce": {"count": 2, "bytes": 4 * 64 + 4 * 9 * 64 * 128 + 20},
        "all-gather": {"count": 1, "bytes": 16},
    }


def test_what_goes_to_the_large_memory() -> None:
    """Arrays of the fast memory (S(1)) do not count, what is fetched into it counts once, a loop's body once."""
    hlo = """HloModule m

%fused (p: f32[100]) -> f32[100] {
  ROOT %inside.1 = f32[100]{0:T(128)} negate(%p)
}

%body.1 (p: (f32[10])) -> (f32[10]) {
  %p = (f32[10]{0:T(128)}) parameter(0)
  %read.1 = f32[10]{0:T(128)} get-tuple-element(%p), index=0
  %twice.1 = f32[10]{0:T(128)S(1)} add(%read.1, %read.1)
}

ENTRY %main.1 (a: f32[1000]) -> f32[8,100] {
  %a = f32[1000]{0:T(128)} parameter(0)
  %copy-start.1 = (f32[1000]{0:T(128)S(1)}, f32[1000]{0:T(128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done.1 = f32[1000]{0:T(128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((f32[1000]{0:T(128)}), f32[500]{0:T(128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:500]}
  %slice-done.1 = f32[500]{0:T(128)S(1)} slice-done(%slice-start.1)
  %both.1 = f32[1000]{0:T(128)S(1)} custom-call(%slice-done.1, %slice-done.1), custom_call_target="ConcatBitcast"
  %loop.1 = (f32[10]{0:T(128)}) while(%t), condition=%cond.1, body=%body.1
  %out.1 = bf16[8,100]{1,0:T(8,128)(2,1)} fusion(%copy-done.1, %a), kind=kLoop, calls=%fused
  ROOT %tuple.1 = (bf16[8,100]{1,0:T(8,128)(2,1)}) tuple(%out.1)
}
"""
    assert large_memory_bytes(hlo) == 4000 + 2000 + 2 * 40 + (1600 + 4000)


def test_a_row_of_the_table() -> None:
    row = markdown([RESULT]).splitlines()[-1]
    assert row == (
        "| v5e, train, bfloat16, pmap, own BatchNorm, 2 parts | 4 on 1 host | 128 | 20.0 | 10.0 | 10.00 | 0.50 "
        "| 3 all-reduce (51.00 MB) |"
    )


def test_the_tables_programs_are_different_and_can_be_configured() -> None:
    assert len({program.name for program in TABLE}) == len(TABLE)
    for program in TABLE:
        config = configuration(program, chips=16)
        assert (config.train.batch_size, config.train.parallel) == (16 * program.pictures, program.parallel)


def test_an_interrupted_table_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Program] = []

    def measured(program: Program) -> dict[str, Any]:
        if len(compiled) == 2:
            raise KeyboardInterrupt
        compiled.append(program)
        return RESULT

    monkeypatch.setattr(compile_programs, "measured", measured)
    with pytest.raises(KeyboardInterrupt):
        run_table(tmp_path / "results.json", TABLE[:3])
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2
    compiled.pop()
    assert len(run_table(tmp_path / "results.json", TABLE[:3])) == 3
    assert compiled == [TABLE[0], TABLE[2]]


def test_without_libtpu_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    error = "compile_programs.py: error: libtpu is not installed: pip install 'jaxfood[tpu-compile]'\n"
    assert capsys.readouterr().err == error


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (jaxfood[tpu-compile])")
def test_an_update_compiles_for_four_chips(tmp_path: Path) -> None:
    """A process of its own: libtpu stays in one to its end, and sets how it logs."""
    size = ("--pictures", "8", "--size", "32", "--settings", "model.width=8")
    command = [sys.executable, str(SCRIPT), "--topology", "v5e:2x2", *size, "--hlo", str(tmp_path / "program.hlo")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert (found["chips"], found["hosts"]) == (4, 1)
    parameters = 4 * 8 * (9 * 3 + 9 * 8 * (2 + 2 * 4 + 4 * 8 + 8 * 8))  # of the convolutions, at an eighth of the width
    # All gradients go to all chips, and BatchNorm's sums: twice a block in each direction.
    assert found["collectives"]["all-reduce"]["bytes"] > parameters
    assert found["operations"] > 0
    assert "all-reduce" in (tmp_path / "program.hlo").read_text()
