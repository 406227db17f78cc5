"""Coverage-guided fuzzing of what reads bytes from outside: `make check-deep`.

Each module is one target: it feeds bytes to one reader and checks the laws that hold for any bytes.
What it finds becomes a test beside the laws in tests/, and is fixed.
"""
