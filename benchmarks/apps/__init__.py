"""Programs that only the benchmarks run: two plain proxies to measure by, and an instance."""
