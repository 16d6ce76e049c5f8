"""What a lesson's source says, and what was measured: a number known before the lesson runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jaxfood.report.page import Page


@dataclass(frozen=True)
class Claim:
    """A number that somebody published or that follows from a formula, beside the measured one.

    Attributes:
        name: what the number is, in a few words.
        source: who says so: a paper, the notes, a formula.
        expected: the number.
        measured: of every seed.
        tolerance: how far a measured number may lie from the expected one, in the same unit.
        relation: `at least` and `at most`: a number on the right side of the expected one holds too.
    """

    name: str
    source: str
    expected: float
    measured: tuple[float, ...]
    tolerance: float
    relation: Literal["equal", "at least", "at most"] = "equal"

    def distance(self, measured: float) -> float:
        """How far a number is from where it should be, 0 on the right side of a bound; not a number: infinitely."""
        signed = measured - self.expected
        if signed != signed:
            return float("inf")
        match self.relation:
            case "at least":
                return max(-signed, 0.0)
            case "at most":
                return max(signed, 0.0)
        return abs(signed)

    @property
    def worst(self) -> float:
        """The measured number that lies farthest off."""
        return max(self.measured, key=self.distance)

    @property
    def holds(self) -> bool:
        """Whether every seed's number is within the tolerance."""
        return self.distance(self.worst) <= self.tolerance

    def as_json(self) -> dict[str, Any]:
        """As a lesson's JSON has it: `measured` is the worst, `each` all of them."""
        fields = asdict(self)
        return {**fields, "measured": self.worst, "each": list(self.measured), "holds": self.holds}


def write_claims(claims: Sequence[dict[str, Any]], page: Page) -> None:
    """The claims, as `Claim.as_json` gives them, as a table at a page's end."""
    if not claims:
        return
    page.text("## Claims")
    signs = {"equal": "", "at least": "≥ ", "at most": "≤ "}
    page.table(
        ("claim", "source", "expected", "measured", "tolerance", "holds"),
        (
            (
                claim["name"],
                claim["source"],
                f"{signs[claim['relation']]}{claim['expected']:.4g}",
                ", ".join(f"{measured:.4g}" for measured in claim["each"]),
                claim["tolerance"],
                "yes" if claim["holds"] else "**no**",
            )
            for claim in claims
        ),
    )
