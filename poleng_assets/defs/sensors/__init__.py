"""The sensors: thin shells that look at folders and events, ask a pure function, and launch runs.

No sensor opens the warehouse: it has one writing process at a time, and a tick must never wait for it.
What was done already is read from Dagster's own history, so that the daemon and the command line, or
a daemon that starts afresh, come to the same answer.
"""

from poleng_assets.defs.sensors.arrivals import batch_arrivals, field_study_arrivals, outcome_arrivals
from poleng_assets.defs.sensors.overseer import overseer

# The command line ticks them in this order: what a killed run left undone comes before what is new, so that
# batches are judged in the order in which they came.
SENSORS = [overseer, field_study_arrivals, batch_arrivals, outcome_arrivals]
