"""Benchmarks. Those of speed compare with the code of the original systems, measured in the same run.

make benchmark                        # all of speed, into reports/benchmarks.md; about ten minutes on two idle cores
python -m benchmarks.latency          # a single one; --quick takes a quarter of the time
"""
