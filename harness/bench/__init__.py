"""Benchmarks: how fast a training step and a whole study are, beside what, and whether a change made them slower.

In come this machine and, for the gate, another revision; out come ladders, counts, verdicts and records of benchmarks. Nothing that
trains or reports a study may depend on it.
"""
