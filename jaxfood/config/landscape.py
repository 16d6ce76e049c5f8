"""The settings of `jaxfood.landscape`: what counts as zero, how much is spent, what the loss is taken on."""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting


@dataclass(frozen=True)
class Tolerances(Section):
    """What counts as zero."""

    section = "landscape"
    decrease_tolerance: float = setting(
        1e-4, "critical: the second-order model promises along -g at most this share of the loss", at_least=0
    )
    zero_tolerance: float = setting(
        1e-4, "an eigenvalue is zero up to this share of the largest magnitude", at_least=0, below=1
    )


@dataclass(frozen=True)
class SpectrumSettings(Section):
    """How much is spent on the spectrum."""

    section = "landscape"
    dense_size: int = setting(1000, "up to so many parameters the whole Hessian is made", at_least=0, at_most=50_000)
    memory_gib: float = setting(2.0, "memory for Lanczos vectors; 20 to 200 are kept", at_least=0, at_most=100_000)
    accuracy: float = setting(0.01, "an extreme eigenvalue's residual, as a share of it", above=0, below=1)
    floor: float = setting(5e-5, "or as a share of the largest magnitude, where that is more", at_least=0, below=1)
    max_products: int = setting(
        400, "most Hessian-vector products for the extreme eigenvalues", at_least=1, at_most=1_000_000
    )
    miss_probability: float = setting(1e-3, "that at either end an eigenvalue lies further out", above=0, below=1)
    probes: int = setting(
        3, "random vectors for the spectral density, that of the ends among them", at_least=2, at_most=10_000
    )
    steps: int = setting(10, "products for each of the others", at_least=1, at_most=10_000)
    trace_products: int = setting(8, "products for the trace beside the density's", at_least=4, at_most=1_000_000)
    seed: int = setting(0, "of the choice of pictures and of every random vector", at_least=0, below=2**31)


@dataclass(frozen=True)
class LandscapeConfig(SpectrumSettings, Tolerances):
    """How a run's landscape is measured, and when."""

    kept_gib: float = setting(
        2.0,
        "memory for what Hessian-vector products need of the gradient; pictures beyond it take half as long again",
        at_least=0,
        at_most=100_000,
    )
    every: int = setting(0, "while training: measure after each so many epochs, too; 0: never", at_least=0)
    samples: int = setting(32, "pictures that the loss is taken on", at_least=1, at_most=1_000_000)
    statistics: str = setting(
        "running",
        "BatchNorm by the running statistics, as predict has it, or by those of the pictures as one batch",
        choices=("running", "batch"),
    )
    top: int = setting(
        0,
        "how many of the largest eigenvalues are told, as far as found; 0: as many as classes",
        at_least=0,
        at_most=1000,
    )
    curve_updates: int = setting(
        100, "with --to: updates of the curve between two runs, of train.batch_size pictures", at_least=1
    )
    # By 100 updates of networks of the demo: of a wall of 1.7 and of 2.0, 0.01 leaves 0.69 and 0.41, 0.03 to 0.05 0.30
    # and 0.13, 0.1 0.29 and 0.22. The authors' for residual networks is 0.03.
    curve_rate: float = setting(0.03, "with --to: learning rate of the curve's momentum descent, at first", above=0)
    radius: float = setting(
        0.05, "of the ball in which the worst rise of the loss is sought", above=0, at_most=1_000_000
    )
