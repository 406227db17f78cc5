"""The engine: one Exchange for each request, moved by callbacks from both sides.

sides      the Protocols through which an Exchange sees clients, connections, pools, observers
exchange   the state machine of one request with all its attempts
target     a Route with everything that can be computed before a request comes
engine     what all exchanges share: routes, clock, chance, observer
refusal    answers of the gateway's own
upstream   one connection to an instance
pool       the connections to one instance
tls        how instances over TLS are verified
deadlines  one coarse clock for all timeouts
"""
