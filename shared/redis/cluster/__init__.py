"""Routes calls to the masters of a cluster by slot.

slots.py      the slot of a key and of a command
slot_map.py   which master has which slot
redirects.py  what to do with a reply: done, send it there, send it later
pipeline.py   one packed connection per master
"""
