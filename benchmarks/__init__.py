"""The gateway and its peers side by side on the same work: `make bench`.

The proxy has one core for itself, load and instances have the rest. What counts first is the CPU
time of the proxy's processes for each request: it is steadier than throughput on a machine that
others use too. Everything is measured in rounds in which each peer has its turn, so that a slow
moment hits everybody, and ratios are taken within a round.

`works` says what is done, `peers/` how each proxy is told to do it, `load/` who asks, `check` that
a peer really does it, `measure` and `rounds` take the figures, `summary`, `bounds`, `report` and
`plot` say what they mean. It ends only what it started.
"""
