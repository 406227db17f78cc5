"""The simulator: the gateway's own engine, against instances and clients that are only played.

    Clients ──▶ SimGateway (Engine, Deadlines) ──▶ SimPool, Link ──▶ PlayedInstance
                      ▲                                                   │
                      └──────────── Registry, after its own delay ◀───────┘

Choice, Breakers, failover and budget are the code that runs in production. What is played: the
clients, the network, what instances do, and the registry. Time is a number (`timeline`), chance has
a seed, so a minute of a hundred gateways takes seconds, and comes out the same each time.

`world` puts one together, `stories` are what happens in it, `figures` what is read off it, and
`plot` and `page` write docs/resilience.md. The laws that hold in it are in tests/sim.
"""
