"""The parts that families are built of."""
