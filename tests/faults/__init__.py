"""Fault campaigns: inject faults into a real fleet under load, and judge every answer.

Clients write, publish and read while processes are killed and connections stall. A history records
every read, and triggers record every commit in the database. Afterwards the judge compares the two.
`script/faults --help` lists the options of a campaign.
"""
