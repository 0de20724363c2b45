"""``poleng recover``: ingest again from the archive what the warehouse has lost."""

import sys
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home, open_runner, open_warehouse


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def recover(yes: bool, home_folder: Path | None) -> None:
    """Ingest again from the archive what Dagster's history has and the warehouse lacks.

    Stop the daemon first. If you have a backup, restore it instead: recovered data gets new dates, and people
    are scored by the current champion. The ledger records the loss.
    """
    from poleng_assets.defs import jobs
    from poleng_assets.defs.continuity import LOOKED_AT_AT_START, reported_writes
    from poleng_assets.warehouse.continuity import missing, record_loss
    from poleng_assets.warehouse.writes import transaction

    home = open_home(home_folder)
    warehouse = open_warehouse(home)
    with open_runner(home, check_continuity=False) as runner:
        writes = reported_writes(runner.instance, LOOKED_AT_AT_START)
        with warehouse.connect() as con:
            lost = missing(con, writes)
        if not lost:
            console.print("The warehouse has everything that Dagster's history records.")
            return
        console.print("Missing in the warehouse:")
        for write in lost:
            console.print(f"  {write.in_words()}")
        if not yes:
            click.confirm("Record the loss, and recover the data from the archive?", abort=True)
        with warehouse.connect() as con, transaction(con):
            record_loss(con, lost, until=max(write.number for write in writes))
        by_asset = {
            "field_studies": jobs.ingest_field_study.name,
            "outcomes": jobs.ingest_outcomes.name,
            **dict.fromkeys(
                ("batches", "predictions", "drift_report", "contact_list"), jobs.process_batch.name
            ),
        }
        wanted = dict.fromkeys(
            (by_asset[write.asset], write.partition) for write in lost if write.asset in by_asset
        )
        # Batches before outcomes: outcomes refer to people of batches.
        sequence = sorted(wanted, key=lambda pair: pair[0] == jobs.ingest_outcomes.name)
        reports = [runner.run(job, partition_key=partition) for job, partition in sequence]
        reports += runner.run_until_idle()
    if not all(report.success for report in reports):
        sys.exit(1)
