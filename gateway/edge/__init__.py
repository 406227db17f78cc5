"""The edge: where clients come in.

accept     Station 1: what both faces look at
reader     requests out of bytes, strictly, for the fast face
protocol   the fast face: a connection that drives exchanges directly
face       what the connections of the fast face share
wire       how answers look on its wire
asgi       the ASGI face: one exchange for each request, under any ASGI server
peers      who is at the other end, and what is believed of it
server     our own process: uvicorn, signals, drain
"""
