"""The bench: the ladder of step times, deterministic counts, and the paired regression gate."""
