"""Finds the master through sentinels, and follows it when it changes.

session.py    one connection to one sentinel
record.py     which view of the sentinels counts
follower.py   what all connections of this process share: the master, and the drop after a switch
watch.py      listens to the notices of all sentinels
"""
