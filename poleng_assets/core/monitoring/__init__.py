"""The overseer: what is measured of a batch, the verdict, and what is to be done."""
