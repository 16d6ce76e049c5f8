"""The campaign of mutated settings, a few hundred cases of it: each a configuration or one plain line."""

import mutated_settings
import pytest

pytestmark = pytest.mark.smoke


def test_two_hundred_mutated_files_and_command_lines() -> None:
    outcomes, refusals = mutated_settings.campaign(200, seed=11)
    assert sum(outcomes.values()) == 200
    assert {name.partition(": ")[2] for name in outcomes} <= {"a configuration", "refused in one line", "help"}
    assert len(refusals) > 100


def test_what_the_campaign_calls_wrong() -> None:
    def fails() -> None:
        raise RecursionError

    assert mutated_settings.judge(fails)[0] == "wrong: RecursionError"

    def endless() -> None:
        raise mutated_settings.UserError("x" * 10_000)

    assert mutated_settings.judge(endless)[0] == "wrong: no line, or an endless one"
