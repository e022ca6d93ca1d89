"""The harness as a library: train one VAE, load a trained one, read a study as a frame.

In come a specification, a folder, a run or the name of a study; out come a `Model` without lanes or noise, whose images are floats
on [0, 1], and data frames. Nothing is trained, scored or read here by means of its own: a model equals that of a study's trial.
"""

from harness.api.model import Model
from harness.api.records import frame, load
from harness.api.training import train

__all__ = ["Model", "frame", "load", "train"]
