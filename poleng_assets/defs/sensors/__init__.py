"""The sensors: they read folders and events, call pure functions, and launch runs.

No sensor opens the warehouse: it allows one writing process at a time, and a tick must not wait for it.
Sensors read what has been done from Dagster's event log, so that the daemon and the command line agree.
"""

from poleng_assets.defs.sensors.arrivals import batch_arrivals, field_study_arrivals, outcome_arrivals
from poleng_assets.defs.sensors.overseer import overseer

# The tick order of the command line: unfinished work before new files, so that batches are judged in order.
SENSORS = [overseer, field_study_arrivals, batch_arrivals, outcome_arrivals]
