"""Pending results: finished runs that wait in memory until they are stored."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from jsc_explore import data
from jsc_explore.config import RECIPE_VERSION, RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.queue import Job
from jsc_explore.results import Outcome, RunRecord
from jsc_explore.store import Store


class PendingResults:
    """Records of finished runs, in the order of their arrival."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def add(self, job: Job, outcome: dict[str, Any]) -> None:
        """Add a worker's outcome of a job.

        Raises JscError if the job's jets are no longer on this machine, TypeError if the outcome has other fields.
        """
        run: RunConfig = job.config
        self._records[job.run_id] = RunRecord(
            run_id=job.run_id,
            config_id=job.config_id,
            data_digest=data.digest(run.dataset),
            recipe_version=RECIPE_VERSION,
            config=run.to_dict(),
            parameters=run.network.parameters,
            outcome=Outcome(**outcome),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def store(self, store: Store) -> Iterator[tuple[str, str, str | None]]:
        """Store all records; yield (run_id, state, error) for each, with a traceback if it cannot be stored.

        A record is removed when the iterator advances past it: after an interruption it is stored again, which changes
        nothing. Raises StoreError if the disk is full; the records stay.
        """
        # All in one part: a part, its sync and a new store version for each would take longer than the training.
        batches = [list(self._records.values())] if self._records else []
        while batches:
            records = batches.pop()
            error = None
            try:
                store.add_all(records)
            except StoreError:
                raise
            except Exception:  # A record is invalid and can never be stored: store the others without it.
                if len(records) > 1:
                    batches += [[record] for record in records]
                    continue
                error = traceback.format_exc()
            for record in records:
                yield record.run_id, "failed" if error else record.outcome.status, error
                del self._records[record.run_id]
