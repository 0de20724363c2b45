"""The asset graph. Each asset reads, calls one or two pure functions, writes, and says what it did."""
