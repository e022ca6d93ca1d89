"""The report of a search: its trials, what they say in words and tables, and figures over time and over the space.

In come the trials of a search queue, out come rows of text and PNG files. What the winner is worth on the test set is decided by
the verdict of its refit.
"""
