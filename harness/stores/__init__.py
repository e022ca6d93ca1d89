"""Databases that are created completely or not at all, and locks between drivers.

In come paths and URIs, out come databases that Optuna or MLflow can open, and blocks that one process at a time can enter. The
meaning of the tables is known to the queue and to tracking alone.
"""
