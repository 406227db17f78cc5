"""Values and decisions, and nothing else.

This package knows no clock, no chance, no socket, no log and no framework: time and randomness come
in as arguments, decisions go out as values. Everything else in the gateway imports it; it imports
nothing of ours.

    model      Instance, Snapshot: what a registry knows
    registry   the Protocols between registries and the rest
    config     routes.yaml as frozen values
    units      durations and sizes as people write them
    addresses  addresses and networks as people write them
    policy     timeouts, retry, breaker: what a route or service is configured to do
    routing    Route, RouteTable: host + path + method -> Route
    paths      the one normal form of a request path
    headers    which fields cross, which stop here, which are ours
    failure    the table of named ways to fail
    failover   may this request be sent again?
    breaker    closed, open, half-open; a Permit for each attempt
    errors_seen  how many of the latest requests to an instance went wrong
    doubts     is a failure an instance's, or the doing of the client that asked?
    balancing  which candidate first
    fleet      the live state of one service's instances
    idle       how long an instance keeps idle connections
    fair       places that one who comes often cannot hold
    watch      the rules of following a registry
    hold       what to believe when a registry says that instances are gone
"""
