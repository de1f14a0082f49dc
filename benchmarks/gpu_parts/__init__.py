"""The parts of `gpu.py`, each with `run(bench, record)`."""
