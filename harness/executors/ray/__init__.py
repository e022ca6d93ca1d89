"""Training on a Ray cluster, without a file system that its machines share.

In come jobs, out come events; results' files and checkpoints are sent to the driver's machine. Only this folder imports Ray.
"""
