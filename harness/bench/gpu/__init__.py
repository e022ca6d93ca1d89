"""What a GPU must show, in ten minutes: parity, times beside goals and peers, whole studies.

In come a device and a folder; out come rows of results, kept there case by case, and a table for docs/performance.md. It must run
on a machine that has torch but no network: neither MLflow nor Optuna may be needed but for the studies.
"""
