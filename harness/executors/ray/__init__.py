"""Training on a Ray cluster, without a file system that its machines share.

In come jobs, out come events; results' files and checkpoints travel to the driver's machine. Everything that imports Ray is here.
"""
