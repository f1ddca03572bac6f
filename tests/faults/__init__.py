"""Injects faults into a real fleet under load, and judges every answer. One run is called a
campaign.

During a campaign, clients write, publish and read while processes are killed and connections stall.
A history records every read. Triggers record every commit in the database. Afterwards a judge
compares the reads with the commits. `script/faults --help` lists the options of a campaign.
"""
