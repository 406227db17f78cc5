"""The admin port: how things are, for people, probes and dashboards. It changes nothing.

report   what is shown, made of the live objects
app      where it is shown
"""
