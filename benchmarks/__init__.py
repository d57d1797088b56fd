"""How fast, measured on the machine at hand: a script a question, each against the seed systems' way in the same run.

make benchmark                        # all of them, into reports/benchmarks.md; some ten minutes on two idle cores
python -m benchmarks.latency           # one; --quick takes a quarter of the time
"""
