"""What is trained and not stored yet: it waits in memory until the disk takes it."""

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
    """Runs that have ended, in the order in which they came."""

    def __init__(self) -> None:
        self._records: dict[str, RunRecord] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def take(self, job: Job, outcome: dict[str, Any]) -> None:
        """Take in what a worker made of a job.

        Raises JscError if its jets are no longer here, TypeError if the worker is of another version.
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
        """Store all of them and yield for each its id, how it ended, and what was wrong with it, if it was that.

        A run leaves the memory only when the next one is asked for: what is interrupted is stored again, which changes
        nothing. Raises StoreError while the disk does not take them; they stay.
        """
        # Together: a part, its way to the disk and a new version of the store for each would take longer than training.
        todo = [list(self._records.values())] if self._records else []
        while todo:
            records = todo.pop()
            error = None
            try:
                store.add_all(records)
            except StoreError:
                raise
            except Exception:  # Not the disk but a record: it would never be written, and the others wait behind it.
                if len(records) > 1:
                    todo += [[record] for record in records]
                    continue
                error = traceback.format_exc()
            for record in records:
                yield record.run_id, "failed" if error else record.outcome.status, error
                del self._records[record.run_id]
