"""Health checks of our own: instances are asked whether they are well, beside the registry.

probe   one check of one instance over HTTP or TCP: passed, or why not
checks  which instances are checked and when; tells the Fleets what was found
"""
