"""Databases that are made whole or not at all, and locks between drivers.

In come paths and URIs, out come databases that Optuna or MLflow can open, and blocks that one process at a time is in. What the
tables mean is for the queue and for tracking to say.
"""
