"""Parameters of the flows: retry policies (``flows.stages``)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ostinato.units import Seconds


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often, how long and on which device a stage is tried: an entry of flows.stages.

    Attributes:
        retries: number of further attempts after the first one has failed.
        delay: seconds before a retry.
        timeout: seconds of one attempt; null: no limit.
        gpu: whether the stage gets GPUs of its own, where there are any. On a worker of Prefect's
            pool `gpu`, true needs one: where TensorFlow sees none, the stage fails. With preferred
            it runs on the CPU there.
    """

    retries: Annotated[int, Field(ge=0, le=100)]
    delay: Annotated[float, Field(ge=0)]
    timeout: Seconds | None
    gpu: bool | Literal["preferred"]
