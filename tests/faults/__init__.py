"""Runs fault campaigns. A campaign injects faults into a real fleet of replicas and workers under
load, and judges every answer.

During a campaign, clients write, publish and read while processes are killed and connections stall.
The clients record every read in a history. Triggers in the database record every commit. Afterwards
a judge compares the reads with the commits. `script/faults --help` lists the options of a campaign.
"""
