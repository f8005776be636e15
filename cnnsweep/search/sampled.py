"""Model-based search: each trial is trained to its end, and a sampler says which is next."""

from __future__ import annotations

from typing import Any, ClassVar

import keras_tuner

from cnnsweep.search.oracle import Proposing


class SampledOracle(Proposing, keras_tuner.Oracle):
    """One of the samplers, by itself."""

    sampler_name: ClassVar[str]

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, sampler=self.sampler_name, **settings)

    def populate_space(self, trial_id: str) -> dict[str, Any]:  # noqa: ARG002
        values = self.propose()
        return {"status": "RUNNING", "values": values} if values is not None else {"status": "STOPPED"}
