"""The run of a study from its file to its report: the loop that asks a queue, trains and records, and the signals that stop it.

In come a study's name and budget, out come runs on record, a report and an exit code. How trials train, what they score and how
they are judged is decided elsewhere.
"""
