"""The partition sets. A partition is one dropped file; sensors add them as files arrive."""

import dagster as dg

batch_partitions = dg.DynamicPartitionsDefinition(name="batch")
field_study_partitions = dg.DynamicPartitionsDefinition(name="field_study")
outcomes_partitions = dg.DynamicPartitionsDefinition(name="outcomes")

PARTITIONS = {
    "batches": batch_partitions,
    "field_studies": field_study_partitions,
    "outcomes": outcomes_partitions,
}
