"""The desk remembers what is done, in Optuna. Only a driver asks it; whatever trains knows nothing of it.

ledger.py: trials, their states and owners. cells.py: the desk of an ablation. points.py, advisers.py: that of a search.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness import paths, stores
from harness.desk.cells import ATTEMPTS, Desk
from harness.desk.found import Asked
from harness.desk.ledger import Ledger
from harness.desk.opening import database
from harness.desk.points import SearchDesk
from harness.desk.ticket import LOST, Repairs, Ticket

__all__ = ["ATTEMPTS", "LOST", "Asked", "Desk", "Ledger", "Repairs", "SearchDesk", "Ticket", "database", "driver_lock"]


@contextmanager
def driver_lock(study: str) -> Iterator[None]:
    """Be the only driver of a study in this home folder, or raise MachineError at once."""
    with stores.lock(paths.mlruns() / "locks" / f"{study}.lock", busy=f"another driver is running the study {study!r}"):
        yield
