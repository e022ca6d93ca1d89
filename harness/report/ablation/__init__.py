"""The report of an ablation: its results joined with its plan, tables of scores and differences, and figures by arm.

In come a study's plan and the records of its finished runs; out come rows of text and PNG files. Which claims hold is decided in
stats.
"""
