"""Evidence: what a run must keep so that it can be trusted and trained again, and the commands that hold it to that.

In come a finished trial's files and what the driver, the worker and the tracker know of it; out comes a manifest, whose digest both
stores keep. `verify` reads records and names what is not as it was kept; `replay` trains a trial again and compares. Neither writes
to a store or takes a lock, and nothing here decides what is run or what a result means. verify.py must not import torch.
"""

from harness.evidence.facts import raw_files
from harness.evidence.manifest import Beginning, History, Place, Witness, of_report
from harness.evidence.rebuilding import rebuild
from harness.evidence.schema import FILE, MADE_OF, TAG, sha256_of

__all__ = ["FILE", "MADE_OF", "TAG", "Beginning", "History", "Place", "Witness", "of_report", "raw_files", "rebuild", "sha256_of"]
