"""The admin port: how things are, for people, probes and dashboards. It changes nothing.

report   what is shown, made of the live objects
load     of it, the load of one service
verdict  of it, who says no to an instance
steps    long pages in steps, some in each turn of the loop
app      where it is shown
hosts    the names under which it answers
"""
