"""Evaluation of link prediction on streams of timed events: metrics, negatives and baselines, as pure functions of arrays.

A stream is E events src -> dst at times t, int64 arrays in order of time. A positive is an event that happened, a negative a
destination that it could have had instead; -1 stands for no negative where rows have fewer than others.
"""
