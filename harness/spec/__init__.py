"""What goes into a trial and what comes out of it, as data.

In come names, numbers and references; out comes a `TrialSpec` that is valid, or an error that lists all that is not. Its id is a
digest of its content. It must not import torch, so that a typo is reported at once, nor anything of the user's.
"""

from harness.spec.arguments import Arguments, flattened
from harness.spec.checks import REAL_FIELDS, unfinished
from harness.spec.needs import DATA_NEEDS, MEETS, Counts, unmet
from harness.spec.result import EXECUTION, Result
from harness.spec.sizes import CHUNK, FLOAT, check_fit, in_words, least_memory, other_channels, step_in_words
from harness.spec.trial import FIELDS, LATER, TrialSpec

__all__ = [
    "CHUNK",
    "DATA_NEEDS",
    "EXECUTION",
    "FIELDS",
    "FLOAT",
    "LATER",
    "MEETS",
    "REAL_FIELDS",
    "Arguments",
    "Counts",
    "Result",
    "TrialSpec",
    "check_fit",
    "flattened",
    "in_words",
    "least_memory",
    "other_channels",
    "step_in_words",
    "unfinished",
    "unmet",
]
