"""The settings of several processes that train one model together."""

from dataclasses import dataclass

from jaxfood.config.fields import Section, setting
from jaxfood.errors import UserError, shown

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class DistributedConfig(Section):
    """Which processes train together, and which of them this one is."""

    section = "distributed"
    coordinator: str = setting(
        "",
        "HOST:PORT of process 0, the same for all; auto: as the TPU pod, Slurm or Open MPI says; none: one process; "
        "empty: auto within srun of several tasks and where TPU_WORKER_HOSTNAMES names several, else none",
    )
    num_processes: int = setting(
        0, "with HOST:PORT: how many processes there are; 0: not set", at_least=0, at_most=65_536
    )
    process_id: int = setting(
        -1, "with HOST:PORT: which of them this is, from 0 on; -1: not set", at_least=-1, below=65_536
    )
    timeout: float = setting(
        300.0, "seconds that a process waits at the start for the others to come", above=0, at_most=604_800
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coordinator in ("", AUTO, NONE):
            if self.num_processes or self.process_id >= 0:
                raise UserError(
                    "distributed.num_processes and distributed.process_id need distributed.coordinator = HOST:PORT of "
                    f"process 0, and it is {shown(self.coordinator)}: set it, or leave both out"
                )
            return
        host, _, port = self.coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise UserError(
                f"distributed.coordinator = {shown(self.coordinator)}: it takes HOST:PORT of process 0, auto, none or "
                "the empty string"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"distributed.process_id = {self.process_id} of distributed.num_processes = {self.num_processes}: "
                "number the processes 0, 1, ... and give each its own number and all the same count"
            )

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Those of `coordinator`, an IPv6 address without its brackets."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)

    def lasting(self) -> "DistributedConfig":
        """What of it holds for a run's next start too: not the place of one process among those of today."""
        return self if self.coordinator in ("", AUTO, NONE) else DistributedConfig()
