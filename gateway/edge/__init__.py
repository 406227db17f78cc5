"""The edge: where clients come in.

accept     Station 1: what both faces look at
hops       OPTIONS and TRACE: which the gateway answers itself
reader     requests out of bytes, strictly, for the fast face
protocol   the fast face: a connection that drives exchanges directly
face       what the connections of the fast face share
wire       how answers look on its wire
asgi       the ASGI face: one exchange for each request, under any ASGI server
peers      who is at the other end, and what is believed of it
server     our own process: uvicorn, signals, drain
tls        which certificate a client sees, and what happens when the files change
redirect   the face of a listener that only sends clients on to TLS
proxied    a listener where each connection begins with the PROXY protocol

proxy_protocol  reads what that says
certificate     reads names out of certificates
"""
