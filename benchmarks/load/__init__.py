"""Who asks: `wrk` for closed loops, `h2load` at a fixed rate, and two of our own for the rest."""
